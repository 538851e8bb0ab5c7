package report

import (
	"cmp"
	"slices"
)

const (
	// maxFaultKinds bounds the memory that a server can make us use; further kinds are
	// counted together.
	maxFaultKinds = 50
	otherFaults   = "other"
)

// Fault is why a request failed, in words that have no token in them and are safe to print.
type Fault struct {
	Kind    string // one of few: a status code with its reason, or what broke
	Message string // of this request
}

// faultCount is how often a kind of fault happened, with the message of the first one.
type faultCount struct {
	count   uint64
	message string
}

// faults counts by kind.
type faults map[string]*faultCount

func (f faults) add(one Fault) {
	if f[one.Kind] == nil {
		if len(f) >= maxFaultKinds {
			one.Kind = otherFaults
		}
		if f[one.Kind] == nil {
			f[one.Kind] = &faultCount{message: one.Message}
		}
	}
	f[one.Kind].count++
}

// Error counts the faults of one kind.
type Error struct {
	Kind    string `json:"kind"`
	Count   uint64 `json:"count"`
	Example string `json:"example"`
}

// rows returns the kinds, the most frequent one first.
func (f faults) rows() []Error {
	rows := []Error{}
	for kind, one := range f {
		rows = append(rows, Error{kind, one.count, one.message})
	}
	slices.SortFunc(rows, func(a, b Error) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind))
	})
	return rows
}
