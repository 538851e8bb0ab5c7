package mirror

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"
)

// ipKey is an IP address as 128 bits, IPv4 mapped into IPv6. It is zero for what cannot be an
// endpoint's address.
type ipKey struct{ high, low uint64 }

// parseIP reads an address in the forms that Kubernetes has ever accepted, such as those with
// leading zeros. plain tells of IPv4 that text is its canonical form.
func parseIP(text string) (key ipKey, plain bool) {
	addr, err := netip.ParseAddr(text)
	plain = err == nil && addr.Is4()
	if err != nil {
		addr, _ = netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	}
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() {
		return ipKey{}, false
	}
	bytes := addr.As16()
	return ipKey{binary.BigEndian.Uint64(bytes[:8]), binary.BigEndian.Uint64(bytes[8:])}, plain
}

func (k ipKey) compare(other ipKey) int {
	if order := cmp.Compare(k.high, other.high); order != 0 {
		return order
	}
	return cmp.Compare(k.low, other.low)
}

// family returns the type of slices that the address belongs into, "" for none.
func (k ipKey) family() discoveryv1.AddressType {
	switch {
	case k == ipKey{}:
		return ""
	case k.high == 0 && k.low>>32 == 0xffff:
		return discoveryv1.AddressTypeIPv4
	}
	return discoveryv1.AddressTypeIPv6
}

// canonical returns the address in its canonical form: text itself if that is it.
func (k ipKey) canonical(text string) string {
	var bytes [16]byte
	binary.BigEndian.PutUint64(bytes[:8], k.high)
	binary.BigEndian.PutUint64(bytes[8:], k.low)
	var buffer [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]byte
	form := netip.AddrFrom16(bytes).Unmap().AppendTo(buffer[:0])
	if string(form) == text {
		return text
	}
	return string(form)
}
