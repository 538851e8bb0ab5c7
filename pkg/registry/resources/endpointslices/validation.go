package endpointslices

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// What a slice may have, as kube-apiserver bounds it. The texts of the API tell of 100 ports.
const (
	maxEndpoints = 1000
	maxAddresses = 100 // of an endpoint
	maxPorts     = 20_000
	maxHints     = 8 // of each kind, of an endpoint
)

// The values that fields may have, in the order in which a client is told of them.
var (
	addressTypes = []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
	protocols    = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
)

var (
	addressTypePath = field.NewPath("addressType")
	endpointsPath   = field.NewPath("endpoints")
	portsPath       = field.NewPath("ports")
)

func addressesPath(endpoint int) *field.Path { return endpointsPath.Index(endpoint).Child("addresses") }

func validateAddressType(addressType discoveryv1.AddressType) field.ErrorList {
	switch {
	case addressType == "":
		return field.ErrorList{field.Required(addressTypePath, "")}
	case !slices.Contains(addressTypes, addressType):
		return field.ErrorList{field.NotSupported(addressTypePath, addressType, addressTypes)}
	}
	return nil
}

// validatePorts returns the faults of the ports, or about apierr.EnoughFaults of them. Their
// numbers are not looked at, as in kube-apiserver: no number is all ports.
func validatePorts(ports []discoveryv1.EndpointPort) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(portsPath, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := make(map[string]bool, len(ports))
	for i := range ports {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		port, path := &ports[i], portsPath.Index(i)
		name, protocol := *port.Name, *port.Protocol // Default has filled them in
		if name != "" {
			for _, msg := range validation.IsDNS1123Label(name) {
				errs = append(errs, field.Invalid(path.Child("name"), name, msg))
			}
		}
		if names[name] {
			errs = append(errs, field.Duplicate(path.Child("name"), name))
		}
		names[name] = true
		if !slices.Contains(protocols, protocol) {
			errs = append(errs, field.NotSupported(path.Child("protocol"), protocol, protocols))
		}
		if port.AppProtocol != nil {
			for _, msg := range validation.IsQualifiedName(*port.AppProtocol) {
				errs = append(errs, field.Invalid(path.Child("appProtocol"), *port.AppProtocol, msg))
			}
		}
	}
	return errs
}

// validateEndpoints returns the faults of the endpoints, about apierr.EnoughFaults of them at
// most. How many addresses endpoints have is told behind all else: counts are those faults.
func validateEndpoints(slice *discoveryv1.EndpointSlice) (errs, counts field.ErrorList) {
	tooMany := len(slice.Endpoints) > maxEndpoints
	if tooMany {
		errs = field.ErrorList{field.TooMany(endpointsPath, len(slice.Endpoints), maxEndpoints)}
	}
	for i := range slice.Endpoints {
		if len(errs)+len(counts) >= apierr.EnoughFaults {
			break
		}
		endpoint := &slice.Endpoints[i]
		switch n := len(endpoint.Addresses); {
		case n == 0:
			counts = append(counts, field.Required(addressesPath(i), ""))
		case n > maxAddresses:
			counts = append(counts, field.TooMany(addressesPath(i), n, maxAddresses))
		}
		if !tooMany {
			errs = append(errs, validateEndpoint(endpoint, slice.AddressType, i)...)
		}
	}
	return errs, counts
}

// validateEndpoint returns the faults of one endpoint, the index of which is given.
func validateEndpoint(endpoint *discoveryv1.Endpoint, addressType discoveryv1.AddressType, index int) field.ErrorList {
	var errs field.ErrorList
	for i, address := range endpoint.Addresses {
		if !isValidAddress(address, addressType) && len(errs) < apierr.EnoughFaults {
			errs = append(errs, validateAddress(address, addressType, addressesPath(index), i)...)
		}
	}
	path := endpointsPath.Index(index)
	if name := endpoint.NodeName; name != nil && !network.IsDNSSubdomain(*name) {
		for _, msg := range validation.IsDNS1123Subdomain(*name) {
			errs = append(errs, field.Invalid(path.Child("nodeName"), *name, msg))
		}
	}
	if name := endpoint.Hostname; name != nil && !network.IsDNSLabel(*name) {
		for _, msg := range validation.IsDNS1123Label(*name) {
			errs = append(errs, field.Invalid(path.Child("hostname"), *name, msg))
		}
	}
	if endpoint.Hints != nil {
		errs = append(errs, validateHints(endpoint.Hints, path.Child("hints"))...)
	}
	return errs
}

// isValidAddress reports whether validateAddress finds no fault. It allocates nothing, and may
// say no of an address without a fault.
func isValidAddress(address string, addressType discoveryv1.AddressType) bool {
	switch addressType {
	case discoveryv1.AddressTypeIPv4:
		addr, err := netip.ParseAddr(address)
		return err == nil && addr.Is4() && network.IsValidIP(address)
	case discoveryv1.AddressTypeIPv6:
		addr, err := netip.ParseAddr(address)
		return err == nil && addr.Is6() && network.IsValidIP(address) && network.IsCanonicalIP(address)
	}
	return false
}

func validateAddress(address string, addressType discoveryv1.AddressType, path *field.Path, index int) field.ErrorList {
	var errs field.ErrorList
	is6 := false
	switch at := path.Index(index); addressType {
	case discoveryv1.AddressTypeIPv4:
		errs = validation.IsValidIPForLegacyField(at, address, true, nil)
	case discoveryv1.AddressTypeIPv6:
		errs = validation.IsValidIP(at, address)
		is6 = true
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(at, address)
	default: // which is a fault of its own
		return nil
	}
	if len(errs) > 0 {
		return errs
	}
	if addr, ok := network.ParseIP(address); ok && addr.Is6() != is6 {
		// kube-apiserver names the list here, not the address.
		errs = append(errs, field.Invalid(path, address, "must be an "+string(addressType)+" address"))
	}
	return append(errs, network.ValidateEndpointIP(address, path.Index(index))...)
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	zones, nodes := path.Child("forZones"), path.Child("forNodes")
	if n := len(hints.ForZones); n > maxHints {
		return field.ErrorList{field.TooMany(zones, n, maxHints)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i, zone := range hints.ForZones {
		errs = append(errs, validateHint(zone.Name, names, zones.Index(i), validation.IsValidLabelValue)...)
	}
	if n := len(hints.ForNodes); n > maxHints {
		return append(errs, field.TooMany(nodes, n, maxHints))
	}
	clear(names)
	for i, node := range hints.ForNodes {
		errs = append(errs, validateHint(node.Name, names, nodes.Index(i), validation.IsDNS1123Subdomain)...)
	}
	return errs
}

// validateHint returns the faults of one name beside those before it.
func validateHint(name string, before map[string]bool, path *field.Path, validate func(string) []string) field.ErrorList {
	var errs field.ErrorList
	if before[name] {
		errs = append(errs, field.Duplicate(path.Child("name"), name))
	}
	before[name] = true
	for _, msg := range validate(name) {
		errs = append(errs, field.Invalid(path.Child("name"), name, msg))
	}
	return errs
}
