package endpoints

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/apierr"
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
	return isValidIP(address.IP) &&
		(address.Hostname == "" || isDNSLabel(address.Hostname)) &&
		(address.NodeName == nil || isDNSSubdomain(*address.NodeName))
}

func isValidIP(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && !addr.Is4In6() && addr.Zone() == "" && !isSpecial(addr)
}

func isSpecial(addr netip.Addr) bool {
	return addr.IsUnspecified() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast()
}

func isValidPort(port *corev1.EndpointPort, nameRequired bool) bool {
	if port.Name == "" && nameRequired || port.Name != "" && !isDNSLabel(port.Name) {
		return false
	}
	if port.Port < 1 || port.Port > 65535 || port.AppProtocol != nil {
		return false
	}
	return port.Protocol == corev1.ProtocolTCP || port.Protocol == corev1.ProtocolUDP || port.Protocol == corev1.ProtocolSCTP
}

// isDNSLabel is whether validation.IsDNS1123Label finds no fault, without its regular
// expression.
func isDNSLabel(s string) bool {
	return len(s) <= validation.DNS1123LabelMaxLength && isDNSName(s, false)
}

// isDNSSubdomain is the same for validation.IsDNS1123Subdomain. The length of a single label
// is not limited, as it is not there.
func isDNSSubdomain(s string) bool {
	return len(s) <= validation.DNS1123SubdomainMaxLength && isDNSName(s, true)
}

// isDNSName reports whether s is [a-z0-9]([-a-z0-9]*[a-z0-9])?, or with dots several of
// these with dots between them.
func isDNSName(s string, dots bool) bool {
	alphanumeric := false // whether the last one was a letter or a digit
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			alphanumeric = true
		case c == '-' && i > 0 && (alphanumeric || s[i-1] == '-'):
			alphanumeric = false
		case c == '.' && dots && alphanumeric:
			alphanumeric = false
		default:
			return false
		}
	}
	return alphanumeric
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
	return append(errs, validateNonSpecialIP(address.IP, path.Child("ip"))...)
}

// validateNonSpecialIP returns the faults of an address that can be no endpoint: nobody
// else reaches a loopback address, and link-local ones serve the node itself.
func validateNonSpecialIP(ip string, path *field.Path) field.ErrorList {
	addr, ok := parseIPSloppy(ip)
	if !ok {
		return field.ErrorList{field.Invalid(path, ip, "must be a valid IP address")}
	}
	var errs field.ErrorList
	if addr.IsUnspecified() {
		errs = append(errs, field.Invalid(path, ip, fmt.Sprintf("may not be unspecified (%v)", ip)))
	}
	if addr.IsLoopback() {
		errs = append(errs, field.Invalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
	}
	if addr.IsLinkLocalUnicast() {
		errs = append(errs, field.Invalid(path, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
	}
	if addr.IsLinkLocalMulticast() {
		errs = append(errs, field.Invalid(path, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
	}
	return errs
}

// parseIPSloppy reads what Kubernetes has always read as an IP address: leading zeros
// count for nothing, an IPv4-mapped address is the IPv4 address, and there are no zones.
func parseIPSloppy(ip string) (netip.Addr, bool) {
	if len(validation.IsValidIPForLegacyField(nil, ip, false, nil)) > 0 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(trimLeadingZeros(ip))
	return addr.Unmap(), err == nil
}

// trimLeadingZeros takes the leading zeros from each group of an IP address and leaves
// one where a group is nothing else.
func trimLeadingZeros(ip string) string {
	var b strings.Builder
	start := true
	for i := range len(ip) {
		separator := ip[i] == '.' || ip[i] == ':'
		last := i+1 == len(ip) || ip[i+1] == '.' || ip[i+1] == ':'
		if start && ip[i] == '0' && !last {
			continue
		}
		b.WriteByte(ip[i])
		start = separator
	}
	return b.String()
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
