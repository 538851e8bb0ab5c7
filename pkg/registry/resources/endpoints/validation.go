package endpoints

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/resources/network"
)

// An Endpoints may have tens of thousands of addresses, nearly all of them valid. So each
// address and port is first asked a plain yes or no question, which allocates nothing;
// only where the answer is no are a field path and the faults made. A no may be wrong, a
// yes may not: what it passes is not looked at again.

// protocols are in the order in which a client is told of them.
var protocols = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}

var subsetsPath = field.NewPath("subsets")

// validateSubsets returns the faults of the subsets, or about apierr.EnoughFaults of them: each
// takes a hundred times the memory of an empty address.
func validateSubsets(subsets []corev1.EndpointSubset) field.ErrorList {
	var errs field.ErrorList
	for i := range subsets {
		if len(errs) >= apierr.EnoughFaults {
			break
		}
		ss := &subsets[i]
		if len(ss.Addresses) == 0 && len(ss.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(subsetsPath.Index(i), "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range ss.Addresses {
			if !isValidAddress(&ss.Addresses[j]) && len(errs) < apierr.EnoughFaults {
				errs = append(errs, validateAddress(&ss.Addresses[j], subsetsPath.Index(i).Child("addresses").Index(j))...)
			}
		}
		for j := range ss.NotReadyAddresses {
			if !isValidAddress(&ss.NotReadyAddresses[j]) && len(errs) < apierr.EnoughFaults {
				errs = append(errs, validateAddress(&ss.NotReadyAddresses[j], subsetsPath.Index(i).Child("notReadyAddresses").Index(j))...)
			}
		}
		nameRequired := len(ss.Ports) > 1
		for j := range ss.Ports {
			if !isValidPort(&ss.Ports[j], nameRequired) && len(errs) < apierr.EnoughFaults {
				errs = append(errs, validatePort(&ss.Ports[j], nameRequired, subsetsPath.Index(i).Child("ports").Index(j))...)
			}
		}
	}
	return errs
}

func isValidAddress(address *corev1.EndpointAddress) bool {
	return network.IsValidIP(address.IP) &&
		(address.Hostname == "" || network.IsDNSLabel(address.Hostname)) &&
		(address.NodeName == nil || network.IsDNSSubdomain(*address.NodeName))
}

func isValidPort(port *corev1.EndpointPort, nameRequired bool) bool {
	if port.Name == "" && nameRequired || port.Name != "" && !network.IsDNSLabel(port.Name) {
		return false
	}
	if port.Port < 1 || port.Port > 65535 || port.AppProtocol != nil {
		return false
	}
	return port.Protocol == corev1.ProtocolTCP || port.Protocol == corev1.ProtocolUDP || port.Protocol == corev1.ProtocolSCTP
}

func validateAddress(address *corev1.EndpointAddress, path *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path.Child("ip"), address.IP, true, nil)
	if address.Hostname != "" {
		for _, msg := range validation.IsDNS1123Label(address.Hostname) {
			errs = append(errs, field.Invalid(path.Child("hostname"), address.Hostname, msg))
		}
	}
	if address.NodeName != nil {
		for _, msg := range validation.IsDNS1123Subdomain(*address.NodeName) {
			errs = append(errs, field.Invalid(path.Child("nodeName"), *address.NodeName, msg))
		}
	}
	return append(errs, network.ValidateEndpointIP(address.IP, path.Child("ip"))...)
}

func validatePort(port *corev1.EndpointPort, nameRequired bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if port.Name != "" {
		for _, msg := range validation.IsDNS1123Label(port.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), port.Name, msg))
		}
	} else if nameRequired {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	for _, msg := range validation.IsValidPortNum(int(port.Port)) {
		errs = append(errs, field.Invalid(path.Child("port"), port.Port, msg))
	}
	switch port.Protocol {
	case corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP:
	case "":
		errs = append(errs, field.Required(path.Child("protocol"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("protocol"), port.Protocol, protocols))
	}
	if port.AppProtocol != nil {
		for _, msg := range validation.IsQualifiedName(*port.AppProtocol) {
			errs = append(errs, field.Invalid(path.Child("appProtocol"), *port.AppProtocol, msg))
		}
	}
	return errs
}
