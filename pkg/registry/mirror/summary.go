package mirror

import (
	"math"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// anyPort is the number of a port that has none, which a slice by hand may have.
const anyPort = math.MinInt32

// lenient are the options for what a server has stored.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Summarize reads what Slices needs to know from the JSON of a slice.
func Summarize(data []byte) (Existing, error) {
	var slice struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		AddressType discoveryv1.AddressType `json:"addressType"`
		Endpoints   []struct {
			Addresses []string `json:"addresses"`
			Hostname  string   `json:"hostname"`
			TargetRef struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"targetRef"`
		} `json:"endpoints"`
		Ports []discoveryv1.EndpointPort `json:"ports"`
	}
	if err := json.Unmarshal(data, &slice, lenient); err != nil {
		return Existing{}, err
	}
	found := Existing{Name: slice.Metadata.Name, AddressType: slice.AddressType, ports: portsKey(portsOf(slice.Ports))}
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if len(e.Addresses) > 0 {
			key, _ := parseIP(e.Addresses[0])
			found.members = append(found.members, hash(key, identity{e.Hostname, e.TargetRef.Namespace, e.TargetRef.Name}))
		}
	}
	return found, nil
}

// portsOf returns the ports of a slice, sorted.
func portsOf(ports []discoveryv1.EndpointPort) []port {
	var found []port
	for i := range ports {
		p := &ports[i]
		found = append(found, newPort(ptr.Deref(p.Name, ""), ptr.Deref(p.Port, anyPort), ptr.Deref(p.Protocol, corev1.ProtocolTCP), p.AppProtocol))
	}
	slices.SortFunc(found, comparePorts)
	return found
}
