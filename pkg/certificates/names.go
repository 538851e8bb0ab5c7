package certificates

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Names is a set of host names and IP addresses for a certificate.
type Names struct {
	dns []string
	ips []netip.Addr
}

// Add adds a host name or an IP address, unless it is empty, an unspecified address, or
// already in the set.
func (s *Names) Add(host string) {
	if host == "" {
		return
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if !slices.Contains(s.dns, host) {
			s.dns = append(s.dns, host)
		}
		return
	}
	// A certificate cannot express a zone.
	addr = addr.Unmap().WithZone("")
	if !addr.IsUnspecified() && !slices.Contains(s.ips, addr) {
		s.ips = append(s.ips, addr)
	}
}

func (s *Names) netIPs() []net.IP {
	ips := make([]net.IP, len(s.ips))
	for i, ip := range s.ips {
		ips[i] = ip.AsSlice()
	}
	return ips
}

// coveredBy reports whether cert is valid for all names and addresses of s.
func (s *Names) coveredBy(cert *x509.Certificate) bool {
	for _, name := range s.dns {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range s.netIPs() {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// ServingNames returns the names of a server that listens on an IP address: the local names,
// the machine's host name, the address (all addresses of the machine for an unspecified
// one), and external, which may be empty.
func ServingNames(bindAddress, external string) (Names, error) {
	names := Names{}
	for _, host := range []string{"localhost", "127.0.0.1", "::1", hostname(), bindAddress, external} {
		names.Add(host)
	}
	if addr, err := netip.ParseAddr(bindAddress); err != nil || !addr.IsUnspecified() {
		return names, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names, fmt.Errorf("cannot list the addresses of this machine: %w", err)
	}
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		// A link-local address means nothing without its zone.
		if err == nil && !prefix.Addr().IsLinkLocalUnicast() {
			names.Add(prefix.Addr().String())
		}
	}
	return names, nil
}

// hostname returns the machine's host name, or "" if a certificate cannot express it.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return ""
	}
	return name
}
