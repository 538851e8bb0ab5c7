// Package forwarded tells where a request comes from when it comes through proxies.
package forwarded

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Client returns the address that a request is charged to: the peer's, or if that is a
// trusted proxy the one that X-Forwarded-For names. It is the zero Addr where the connection
// has no IP address.
//
// Each proxy appends the address that it was called from, so the header is read from its
// end, all lines as one list, while the entries are trusted proxies themselves. What stands
// before the first one that is not may be the client's own invention.
func Client(req *http.Request, trusted []netip.Prefix) netip.Addr {
	addr := parseAddr(req.RemoteAddr)
	for _, line := range slices.Backward(req.Header["X-Forwarded-For"]) {
		for more := true; more; {
			if !isTrusted(addr, trusted) {
				return addr
			}
			var entry string
			line, entry, more = cutLast(line)
			before := parseAddr(strings.Trim(entry, " \t"))
			if !before.IsValid() {
				return addr
			}
			addr = before
		}
	}
	return addr
}

// cutLast cuts a list at its last comma, and reports whether there is one.
func cutLast(list string) (before, last string, found bool) {
	at := strings.LastIndexByte(list, ',')
	if at < 0 {
		return "", list, false
	}
	return list[:at], list[at+1:], true
}

func isTrusted(addr netip.Addr, trusted []netip.Prefix) bool {
	return slices.ContainsFunc(trusted, func(network netip.Prefix) bool { return network.Contains(addr) })
}

// parseAddr reads an IP address with or without a port, and one of IPv6 with or without
// brackets. It returns the zero Addr for anything else. An IPv4-mapped address is the IPv4
// address, and a zone is left out.
func parseAddr(text string) netip.Addr {
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
		text = strings.TrimSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(text) // the zero AddrPort after an error
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}
