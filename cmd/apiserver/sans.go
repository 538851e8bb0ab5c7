package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// sanSet is the names and addresses that a serving certificate is good for.
type sanSet struct {
	dns []string
	ips []netip.Addr
}

func (s *sanSet) add(host string) {
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
	// A certificate has no room for a zone.
	addr = addr.Unmap().WithZone("")
	if !addr.IsUnspecified() && !slices.Contains(s.ips, addr) {
		s.ips = append(s.ips, addr)
	}
}

func (s *sanSet) netIPs() []net.IP {
	ips := make([]net.IP, len(s.ips))
	for i, ip := range s.ips {
		ips[i] = ip.AsSlice()
	}
	return ips
}

// coveredBy reports whether cert has every name and address of s.
func (s *sanSet) coveredBy(cert *x509.Certificate) bool {
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

// servingNames is what the server made by c can be called by: the local names, the
// machine's name, the addresses it listens on and --external-hostname.
func servingNames(c config) (sanSet, error) {
	names := sanSet{}
	for _, host := range []string{"localhost", "127.0.0.1", "::1", hostname(), c.BindAddress, c.ExternalHostname} {
		names.add(host)
	}
	if addr, err := netip.ParseAddr(c.BindAddress); err != nil || !addr.IsUnspecified() {
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
			names.add(prefix.Addr().String())
		}
	}
	return names, nil
}
