package mirror

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// port is what distinguishes ports. The zero port stands for a subset that has none.
type port struct {
	name     string
	protocol corev1.Protocol
	number   int32
	// app is the application protocol, if hasApp.
	app    string
	hasApp bool
}

func newPort(name string, number int32, protocol corev1.Protocol, app *string) port {
	p := port{name: name, protocol: cmp.Or(protocol, corev1.ProtocolTCP), number: number}
	if app != nil {
		p.app, p.hasApp = *app, true
	}
	return p
}

func comparePorts(a, b port) int {
	order := cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number), strings.Compare(a.app, b.app))
	if order == 0 && a.hasApp != b.hasApp {
		if b.hasApp {
			return -1
		}
		return 1
	}
	return order
}

// address is one that subsets name, each as often as it likes.
type address struct {
	key   ipKey
	plain bool                    // see parseIP
	first *corev1.EndpointAddress // as it was written first
}

// member is an address of a set: its index twice, plus one if it is not ready. So members of
// one address are neighbours when sorted, and the last of them is the one that counts.
type member = uint32

func index(m member) int    { return int(m >> 1) }
func isReady(m member) bool { return m&1 == 0 }

// portSet is a set of ports with the same addresses.
type portSet struct {
	ports   []port   // sorted; none: the addresses have no ports
	members []member // sorted, each address once
}

// repack takes subsets apart into ports and puts those together that have the same addresses
// and readiness, as RepackSubsets of Kubernetes does: addresses are the same if text and uid of
// the target are, and one that is both ready and not ready for a port is not ready. It returns
// the addresses in the order of their IPs, and the sets in the order of their ports, whatever
// the order of the subsets.
func repack(subsets []corev1.EndpointSubset) ([]address, []portSet, error) {
	classes := classify(subsets)
	total := 0
	for _, c := range classes {
		for _, i := range c.subsets {
			total += len(subsets[i].Addresses) + len(subsets[i].NotReadyAddresses)
		}
	}
	if total > MaxEndpoints {
		return nil, nil, ErrTooMany
	}
	addresses, lists := collect(subsets)
	var sets []portSet
	byMembers := map[string]int{} // the index in sets
	for _, c := range classes {
		members := lists[c.subsets[0]]
		if len(c.subsets) > 1 {
			members = union(lists, c.subsets)
		}
		if len(classes) == 1 {
			sets = append(sets, portSet{c.ports, members})
			break
		}
		key := text(members)
		at, found := byMembers[key]
		if !found {
			at = len(sets)
			byMembers[key] = at
			sets = append(sets, portSet{members: members})
		}
		sets[at].ports = append(sets[at].ports, c.ports...)
	}
	for i := range sets {
		sets[i].ports = slices.DeleteFunc(sets[i].ports, func(p port) bool { return p == port{} })
		slices.SortFunc(sets[i].ports, comparePorts)
	}
	slices.SortFunc(sets, func(a, b portSet) int { return slices.CompareFunc(a.ports, b.ports, comparePorts) })
	return addresses, sets, nil
}

// class is a set of ports that the same subsets have.
type class struct {
	ports   []port
	subsets []uint32 // their indices, sorted
}

// classify returns the ports by the subsets that have them. There are far fewer classes than
// ports where subsets have many.
func classify(subsets []corev1.EndpointSubset) []class {
	having := map[port][]uint32{}
	var ports []port // in the order in which they came
	add := func(p port, subset int) {
		if p.number <= 0 {
			p = port{}
		}
		list := having[p]
		if list == nil {
			ports = append(ports, p)
		}
		if n := len(list); n == 0 || list[n-1] != uint32(subset) {
			having[p] = append(list, uint32(subset))
		}
	}
	for i := range subsets {
		subset := &subsets[i]
		if len(subset.Addresses)+len(subset.NotReadyAddresses) == 0 {
			continue
		}
		if len(subset.Ports) == 0 {
			add(port{}, i)
		}
		for j := range subset.Ports {
			p := &subset.Ports[j]
			add(newPort(p.Name, p.Port, p.Protocol, p.AppProtocol), i)
		}
	}
	var classes []class
	bySubsets := map[string]int{} // the index in classes
	for _, p := range ports {
		list := having[p]
		key := text(list)
		at, found := bySubsets[key]
		if !found {
			at = len(classes)
			bySubsets[key] = at
			classes = append(classes, class{subsets: list})
		}
		classes[at].ports = append(classes[at].ports, p)
	}
	return classes
}

// text makes a map's key of numbers.
func text(list []uint32) string {
	b := make([]byte, 0, 4*len(list))
	for _, n := range list {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b)
}

// union returns the members of several subsets.
func union(lists [][]member, subsets []uint32) []member {
	var all []member
	for _, i := range subsets {
		all = append(all, lists[i]...)
	}
	slices.Sort(all)
	unique := all[:0]
	for i, m := range all {
		if i+1 == len(all) || index(all[i+1]) != index(m) {
			unique = append(unique, m)
		}
	}
	return unique
}

// occurrence is one mention of an address. Without pointers it is sorted much faster.
type occurrence struct {
	key      ipKey
	at       uint32 // how many came before
	subset   uint32
	plain    bool
	notReady uint8 // 1, or 0
}

// collect returns the addresses of all subsets, sorted, and the members of each subset.
func collect(subsets []corev1.EndpointSubset) ([]address, [][]member) {
	var written []*corev1.EndpointAddress
	var all []occurrence
	lists := make([][]member, len(subsets))
	for i := range subsets {
		n := len(subsets[i].Addresses) + len(subsets[i].NotReadyAddresses)
		lists[i] = make([]member, 0, n)
		written, all = slices.Grow(written, n), slices.Grow(all, n)
		for notReady, list := range [][]corev1.EndpointAddress{subsets[i].Addresses, subsets[i].NotReadyAddresses} {
			for j := range list {
				key, plain := parseIP(list[j].IP)
				all = append(all, occurrence{key, uint32(len(all)), uint32(i), plain, uint8(notReady)})
				written = append(written, &list[j])
			}
		}
	}
	slices.SortFunc(all, func(a, b occurrence) int {
		if order := a.key.compare(b.key); order != 0 {
			return order
		}
		if order := compareWritten(written[a.at], written[b.at]); order != 0 {
			return order
		}
		return cmp.Compare(a.at, b.at)
	})
	addresses := make([]address, 0, len(all))
	for i, o := range all {
		if i == 0 || all[i-1].key != o.key || compareWritten(written[all[i-1].at], written[o.at]) != 0 {
			addresses = append(addresses, address{o.key, o.plain, written[o.at]})
		}
		m := member(len(addresses)-1)<<1 | member(o.notReady)
		list := lists[o.subset]
		if n := len(list); n > 0 && index(list[n-1]) == index(m) {
			list[n-1] |= m
		} else {
			lists[o.subset] = append(list, m)
		}
	}
	return addresses, lists
}

// compareWritten orders addresses of one IP as Kubernetes orders all, by text and target.
func compareWritten(a, b *corev1.EndpointAddress) int {
	if order := strings.Compare(a.IP, b.IP); order != 0 {
		return order
	}
	return cmp.Compare(targetUID(a), targetUID(b))
}

// ip returns the address in its canonical form.
func (a *address) ip() string {
	if a.plain {
		return a.first.IP
	}
	return a.key.canonical(a.first.IP)
}

func targetUID(a *corev1.EndpointAddress) types.UID {
	if a.TargetRef == nil {
		return ""
	}
	return a.TargetRef.UID
}
