// Package network has the rules for addresses and names that several resources share. They are
// kube-apiserver's, down to the texts and the order of faults.
package network

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// IsValidIP reports whether an address is well-formed and can be an endpoint's: where it says
// yes, validation.IsValidIPForLegacyField and ValidateEndpointIP find no fault. It allocates nothing.
func IsValidIP(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && !addr.Is4In6() && addr.Zone() == "" && !isSpecial(addr)
}

func isSpecial(addr netip.Addr) bool {
	return addr.IsUnspecified() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast()
}

// ValidateEndpointIP returns the faults of an address that can be no endpoint: nobody
// else reaches a loopback address, and link-local ones serve the node itself.
func ValidateEndpointIP(ip string, path *field.Path) field.ErrorList {
	addr, ok := ParseIP(ip)
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

// ParseIP reads what Kubernetes has always read as an IP address: leading zeros
// count for nothing, an IPv4-mapped address is the IPv4 address, and there are no zones.
func ParseIP(ip string) (netip.Addr, bool) {
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

// IsCanonicalIP reports whether Warnings has nothing to say about an address. It allocates
// nothing, and may say no where there is nothing to be said after all.
func IsCanonicalIP(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Is4In6() || addr.Zone() != "" {
		return false
	}
	if addr.Is4() {
		return true // netip reads no other form
	}
	var text [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]byte
	return string(addr.AppendTo(text[:0])) == ip
}

// Warnings returns a warning for an address that is not in its canonical form, and none for what is no IP address at all: an update may carry one
// along that was stored long ago, and GetWarningsForIP would log it as a bug.
func Warnings(path *field.Path, ip string) []string {
	if _, ok := ParseIP(ip); !ok {
		return nil
	}
	return validation.GetWarningsForIP(path, ip)
}
