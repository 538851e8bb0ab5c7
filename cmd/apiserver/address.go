package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// clientHost is the host by which a client on this machine reaches the server, and by
// which the kubeconfig names it: --external-hostname, else the address it listens on.
func clientHost(c config) string {
	if c.ExternalHostname != "" {
		return c.ExternalHostname
	}
	// The address was validated; a wrong one is printed as it is.
	addr, err := netip.ParseAddr(c.BindAddress)
	switch {
	case err != nil:
		return c.BindAddress
	case addr.IsUnspecified() && addr.Is4():
		return loopback
	case addr.IsUnspecified():
		return "::1"
	default:
		return addr.String()
	}
}

// secureURL is the base URL of the server, without a closing slash.
func secureURL(host string, port int) string {
	// In a URL a zone's % is itself escaped (RFC 6874).
	return "https://" + net.JoinHostPort(strings.ReplaceAll(host, "%", "%25"), strconv.Itoa(port))
}
