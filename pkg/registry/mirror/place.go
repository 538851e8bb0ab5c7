package mirror

import (
	"cmp"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// maxPerSlice is how many endpoints a slice may have.
const maxPerSlice = 1000

// Existing is what Slices knows of a stored slice that mirrors an Endpoints.
type Existing struct {
	Name        string
	AddressType discoveryv1.AddressType
	ports       string   // see portsKey
	members     []uint64 // the hashes of its endpoints
}

// part is the endpoints of one slice.
type part struct {
	takes   int // the index of the existing slice that it overwrites; -1: none
	members []member
	changed bool // whether it loses endpoints, so that it is rewritten anyway
}

// place divides a set of endpoints among slices. Each stays where it is, if it is in one of the
// existing slices, which are in the order of their names and are indices of all. What is new goes to
// slices that are rewritten anyway, then to others that have room, the fullest first. So a change of
// one endpoint rewrites one slice. A set that fits into one slice is in one, and another in at most
// twice as many as it needs.
func place(members []member, hashes []uint64, existing []int, all []Existing) []part {
	needed := (len(members) + maxPerSlice - 1) / maxPerSlice
	if needed == 1 {
		takes := -1
		if len(existing) > 0 {
			takes = existing[0]
		}
		return []part{{takes: takes, members: members}}
	}
	parts, rest := keep(members, hashes, existing, all)
	slices.SortStableFunc(parts, func(a, b part) int { return -cmp.Compare(len(a.members), len(b.members)) })
	for len(parts) > 2*needed || len(parts) > 0 && len(parts[len(parts)-1].members) == 0 {
		rest = append(rest, parts[len(parts)-1].members...)
		parts = parts[:len(parts)-1]
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		switch {
		case a.changed == b.changed:
			return 0
		case a.changed:
			return -1
		}
		return 1
	})
	slices.Sort(rest)
	for i := range parts {
		n := min(len(rest), maxPerSlice-len(parts[i].members))
		parts[i].members = append(parts[i].members, rest[:n]...)
		slices.Sort(parts[i].members)
		rest = rest[n:]
	}
	for chunk := range slices.Chunk(rest, maxPerSlice) {
		parts = append(parts, part{takes: -1, members: chunk})
	}
	return parts
}

// keep returns what stays in the existing slices, and the rest.
func keep(members []member, hashes []uint64, existing []int, all []Existing) (parts []part, rest []member) {
	const none = ^member(0)
	where := make(map[uint64]int, len(members))
	if len(existing) > 0 {
		for i, hash := range hashes {
			where[hash] = i
		}
	}
	left := slices.Clone(members)
	for _, k := range existing {
		p := part{takes: k}
		for _, hash := range all[k].members {
			i, ok := where[hash]
			if !ok || left[i] == none || len(p.members) == maxPerSlice {
				p.changed = true
				continue
			}
			p.members = append(p.members, left[i])
			left[i] = none
		}
		parts = append(parts, p)
	}
	return parts, slices.DeleteFunc(left, func(m member) bool { return m == none })
}

// identity is what distinguishes the endpoints of a slice.
type identity struct{ hostname, namespace, name string }

// hash returns a number that is the same for an endpoint of Endpoints and of a slice.
func hash(key ipKey, id identity) uint64 {
	h := mix(mix(key.high+0x9e3779b97f4a7c15) ^ key.low)
	if id == (identity{}) {
		return h
	}
	for _, part := range []string{id.hostname, id.namespace, id.name} {
		for i := range len(part) {
			h = (h ^ uint64(part[i])) * 0x100000001b3
		}
		h = (h ^ 0xff) * 0x100000001b3 // which is in no UTF-8 text
	}
	return mix(h)
}

// mix lets each bit of its argument change about half of those that it returns.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
