package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// layout are slices by name, with the hashes of their endpoints.
type layout map[string][]uint64

// change has the layout hold the endpoints with these hashes, and returns how many slices it
// writes and deletes.
func (l layout) change(t *testing.T, hashes []uint64) (written, deleted int) {
	t.Helper()
	var all []Existing
	for name, members := range l {
		all = append(all, Existing{Name: name, members: members})
	}
	slices.SortFunc(all, func(a, b Existing) int { return len(a.Name) - len(b.Name) })
	order, members := make([]int, len(all)), make([]member, len(hashes))
	for i := range order {
		order[i] = i
	}
	for i := range members {
		members[i] = member(2 * i)
	}
	next := layout{}
	for _, p := range place(members, hashes, order, all) {
		if len(p.members) == 0 || len(p.members) > maxPerSlice || !slices.IsSorted(p.members) {
			t.Errorf("a slice of %d, sorted: %t", len(p.members), slices.IsSorted(p.members))
		}
		name := fmt.Sprintf("%0*d", len(l)+len(next)+1000, 0)
		if p.takes >= 0 {
			name = all[p.takes].Name
		}
		for _, m := range p.members {
			next[name] = append(next[name], hashes[index(m)])
		}
		if !slices.Equal(next[name], l[name]) {
			written++
		}
	}
	for name := range l {
		if next[name] == nil {
			deleted++
		}
	}
	clear(l)
	total := 0
	for name, members := range next {
		l[name] = members
		total += len(members)
	}
	if total != len(hashes) {
		t.Errorf("%d endpoints, want %d", total, len(hashes))
	}
	if most := 2 * ((len(hashes) + maxPerSlice - 1) / maxPerSlice); len(l) > most {
		t.Errorf("%d slices for %d endpoints", len(l), len(hashes))
	}
	return written, deleted
}

// Whatever comes and goes, one endpoint rewrites one slice, and slices do not pile up.
func TestPlace(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	l, hashes := layout{}, []uint64{}
	add := func(n int) {
		for range n {
			hashes = slices.Insert(hashes, random.IntN(len(hashes)+1), random.Uint64())
		}
	}
	add(20_000)
	if written, _ := l.change(t, hashes); written != 20 {
		t.Errorf("%d slices for 20,000", written)
	}
	for range 20 {
		hashes[random.IntN(len(hashes))] = random.Uint64()
		if written, deleted := l.change(t, hashes); written != 1 || deleted != 0 {
			t.Errorf("one replaced: %d written, %d deleted", written, deleted)
		}
		add(1)
		if written, deleted := l.change(t, hashes); written != 1 || deleted != 0 {
			t.Errorf("one added: %d written, %d deleted", written, deleted)
		}
		at := random.IntN(len(hashes))
		hashes = slices.Delete(hashes, at, at+1)
		if written, deleted := l.change(t, hashes); written+deleted != 1 {
			t.Errorf("one removed: %d written, %d deleted", written, deleted)
		}
	}
	for len(hashes) > 0 { // at random, so that all slices get emptier
		for range min(len(hashes), 300) {
			at := random.IntN(len(hashes))
			hashes = slices.Delete(hashes, at, at+1)
		}
		l.change(t, hashes)
	}
	hashes = slices.Repeat([]uint64{7}, 2500) // as good as never
	l.change(t, hashes)
	l.change(t, hashes)
}

func TestSummarize(t *testing.T) {
	const data = `{"kind":"EndpointSlice","metadata":{"name":"a-1","labels":{"x":"y"}},"addressType":"IPv6","endpoints":[{"addresses":["2001:db8::1","2001:db8::2"],"hostname":"a","targetRef":{"namespace":"n","name":"p"}},{"addresses":["2001:db8::3"]},{}],"ports":[{"name":"b","port":80},{"name":"a","protocol":"UDP","appProtocol":"x"}]}`
	got, err := Summarize([]byte(data))
	if err != nil || got.Name != "a-1" || got.AddressType != "IPv6" || got.ports != `"a""UDP"-2147483648"x","b""TCP"80,` || len(got.members) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Summarize([]byte(`{"endpoints":[{]`)); err == nil {
		t.Error("no error for what is no JSON")
	}
}
