package mirror

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

// Endpoints returns the Endpoints that shows slices, which are those of a Service of that
// name: nil if none of them has IP addresses of its own. It has the labels of the Service,
// which may be nil, and a mark by which IsDerived knows it and Kubernetes' mirror leaves it
// alone. What Endpoints cannot have is left out: all but the first address of an endpoint,
// for which the API has no meaning, and ports without a number. The order of the slices does
// not matter, but their names do. The Endpoints shares memory with them.
func Endpoints(namespace, name string, service *corev1.Service, shown []*discoveryv1.EndpointSlice) (*corev1.Endpoints, error) {
	shown = slices.DeleteFunc(slices.Clone(shown), func(s *discoveryv1.EndpointSlice) bool {
		return IsMirror(labels.Set(s.Labels)) || s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6
	})
	if len(shown) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(shown, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	var subsets []corev1.EndpointSubset
	for _, s := range shown {
		if subset, ok := subsetOf(s); ok {
			subsets = append(subsets, subset)
		}
	}
	addresses, sets, err := repack(subsets)
	if err != nil {
		return nil, err
	}
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{}}}
	if service != nil {
		maps.Copy(e.Labels, service.Labels)
	}
	e.Labels[discoveryv1.LabelSkipMirror] = "true"
	e.Labels[DerivedLabel] = DerivedBy
	total := 0
	for _, set := range sets {
		for _, ports := range separateUnnamed(set.ports) {
			if total += len(set.members); total > MaxEndpoints {
				return nil, ErrTooMany
			}
			e.Subsets = append(e.Subsets, newSubset(addresses, set.members, ports))
		}
	}
	// The sets are sorted by their ports, but taking unnamed ones out of them may change that.
	slices.SortStableFunc(e.Subsets, func(a, b corev1.EndpointSubset) int {
		return slices.CompareFunc(a.Ports, b.Ports, func(p, q corev1.EndpointPort) int {
			return comparePorts(newPort(p.Name, p.Port, p.Protocol, p.AppProtocol), newPort(q.Name, q.Port, q.Protocol, q.AppProtocol))
		})
	})
	return e, nil
}

// subsetOf returns what a slice says as a subset, if that can say it.
func subsetOf(s *discoveryv1.EndpointSlice) (corev1.EndpointSubset, bool) {
	var subset corev1.EndpointSubset
	for i := range s.Ports {
		p := &s.Ports[i]
		if number := ptr.Deref(p.Port, 0); number >= 1 && number <= 65535 {
			subset.Ports = append(subset.Ports, corev1.EndpointPort{
				Name: ptr.Deref(p.Name, ""), Port: number, Protocol: ptr.Deref(p.Protocol, corev1.ProtocolTCP), AppProtocol: p.AppProtocol,
			})
		}
	}
	if len(s.Ports) > 0 && len(subset.Ports) == 0 {
		return subset, false
	}
	for i := range s.Endpoints {
		endpoint := &s.Endpoints[i]
		a, ok := addressOf(endpoint)
		if !ok {
			continue
		}
		if ptr.Deref(endpoint.Conditions.Ready, true) {
			subset.Addresses = append(subset.Addresses, a)
		} else {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, a)
		}
	}
	return subset, true
}

// addressOf returns an endpoint's first address, unless Endpoints would be refused for it:
// slices that older versions stored may have what is not valid.
func addressOf(endpoint *discoveryv1.Endpoint) (corev1.EndpointAddress, bool) {
	if len(endpoint.Addresses) == 0 {
		return corev1.EndpointAddress{}, false
	}
	key, _ := parseIP(endpoint.Addresses[0])
	hostname := ptr.Deref(endpoint.Hostname, "")
	if key == (ipKey{}) ||
		hostname != "" && len(validation.IsDNS1123Label(hostname)) > 0 ||
		endpoint.NodeName != nil && len(validation.IsDNS1123Subdomain(*endpoint.NodeName)) > 0 {
		return corev1.EndpointAddress{}, false
	}
	return corev1.EndpointAddress{
		IP: key.canonical(endpoint.Addresses[0]), Hostname: hostname, NodeName: endpoint.NodeName, TargetRef: endpoint.TargetRef,
	}, true
}

// separateUnnamed returns ports as subsets may have them: one without a name must be the only
// one.
func separateUnnamed(ports []port) [][]port {
	if len(ports) <= 1 {
		return [][]port{ports}
	}
	named := slices.IndexFunc(ports, func(p port) bool { return p.name != "" }) // they are sorted by name
	if named < 0 {
		named = len(ports)
	}
	groups := slices.Collect(slices.Chunk(ports[:named], 1))
	if named < len(ports) {
		groups = append(groups, ports[named:])
	}
	return groups
}

func newSubset(addresses []address, members []member, ports []port) corev1.EndpointSubset {
	var subset corev1.EndpointSubset
	for _, m := range members {
		a := *addresses[index(m)].first
		if isReady(m) {
			subset.Addresses = append(subset.Addresses, a)
		} else {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, a)
		}
	}
	for _, p := range ports {
		out := corev1.EndpointPort{Name: p.name, Port: p.number, Protocol: p.protocol}
		if p.hasApp {
			out.AppProtocol = ptr.To(p.app)
		}
		subset.Ports = append(subset.Ports, out)
	}
	return subset
}
