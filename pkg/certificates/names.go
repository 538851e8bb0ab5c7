package certificates

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// ServingNames returns the host names and IP addresses of a server that listens on an IP
// address: the local names, the machine's host name, the address (all addresses of the machine
// for an unspecified one), and external, which may be empty.
func ServingNames(bindAddress, external string) ([]string, error) {
	bind, err := netip.ParseAddr(bindAddress)
	if err != nil {
		return nil, err
	}
	names := []string{"localhost", "127.0.0.1", "::1", hostname(), external}
	if !bind.IsUnspecified() {
		return distinct(append(names, bindAddress)), nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("cannot list the addresses of this machine: %w", err)
	}
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		// A link-local address means nothing without its zone.
		if err == nil && !prefix.Addr().IsLinkLocalUnicast() {
			names = append(names, prefix.Addr().String())
		}
	}
	return distinct(names), nil
}

// distinct returns names in the form that a certificate can express, without empty and
// repeated ones.
func distinct(names []string) []string {
	for i, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			names[i] = addr.Unmap().WithZone("").String()
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// hostname returns the machine's host name, or "" if a certificate cannot express it.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return ""
	}
	return name
}
