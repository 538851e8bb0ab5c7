package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naive is what ring promises, without its arithmetic.
type naive struct {
	maxEvents, maxBytes int
	events              []*Event[string]
	sizes               []int
	since               int64
}

func (n *naive) append(event *Event[string], bytes int) {
	n.events, n.sizes = append(n.events, event), append(n.sizes, bytes)
	for len(n.events) > 1 && (len(n.events) > n.maxEvents || sum(n.sizes) > n.maxBytes) {
		n.since = n.events[0].Revision
		n.events, n.sizes = n.events[1:], n.sizes[1:]
	}
}

func (n *naive) after(revision int64) ([]*Event[string], bool) {
	if revision < n.since {
		return nil, false
	}
	i := 0
	for i < len(n.events) && n.events[i].Revision <= revision {
		i++
	}
	return n.events[i:], true
}

func sum(sizes []int) (total int) {
	for _, size := range sizes {
		total += size
	}
	return total
}

// ringAfter is what ring.after leads to.
func ringAfter(r *ring[string], revision int64) ([]*Event[string], bool) {
	sequence, ok := r.after(revision)
	if !ok {
		return nil, false
	}
	var events []*Event[string]
	for ; sequence < r.next; sequence++ {
		events = append(events, r.at(sequence))
	}
	return events, true
}

func revisionsOf(events []*Event[string]) []int64 {
	revisions := []int64{}
	for _, event := range events {
		revisions = append(revisions, event.Revision)
	}
	return revisions
}

func TestRingAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		maxEvents, maxBytes int
		since               int64
		append              []int64 // revisions of events of ten bytes each
		after               int64
		want                []int64
		gone                bool
	}{
		"empty, at the start":                {4, 1000, 5, nil, 5, []int64{}, false},
		"empty, before the start":            {4, 1000, 5, nil, 4, nil, true},
		"everything":                         {4, 1000, 5, []int64{6, 8, 9}, 5, []int64{6, 8, 9}, false},
		"between two":                        {4, 1000, 5, []int64{6, 8, 9}, 7, []int64{8, 9}, false},
		"at one":                             {4, 1000, 5, []int64{6, 8, 9}, 8, []int64{9}, false},
		"at the last":                        {4, 1000, 5, []int64{6, 8, 9}, 9, []int64{}, false},
		"behind the last":                    {4, 1000, 5, []int64{6, 8, 9}, 20, []int64{}, false},
		"full":                               {3, 1000, 5, []int64{6, 8, 9}, 5, []int64{6, 8, 9}, false},
		"one dropped, before it":             {2, 1000, 5, []int64{6, 8, 9}, 5, nil, true},
		"one dropped, at it":                 {2, 1000, 5, []int64{6, 8, 9}, 6, []int64{8, 9}, false},
		"dropped by bytes":                   {4, 20, 5, []int64{6, 8, 9}, 5, nil, true},
		"kept by bytes":                      {4, 20, 5, []int64{6, 8, 9}, 6, []int64{8, 9}, false},
		"larger than the bound":              {4, 5, 5, []int64{6, 8}, 6, []int64{8}, false},
		"a revision of which a part is gone": {3, 1000, 5, []int64{6, 6, 6, 6}, 5, nil, true},
		"after that revision":                {3, 1000, 5, []int64{6, 6, 6, 6}, 6, []int64{}, false},
		"a whole revision":                   {4, 1000, 5, []int64{6, 7, 7, 7}, 6, []int64{7, 7, 7}, false},
		"a single slot":                      {1, 1000, 5, []int64{6, 7}, 6, []int64{7}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var r ring[string]
			r.init(tc.maxEvents, tc.maxBytes)
			r.reset(tc.since)
			for _, revision := range tc.append {
				r.append(&Event[string]{Revision: revision}, 10)
			}
			got, ok := ringAfter(&r, tc.after)
			if ok == tc.gone {
				t.Fatalf("kept: %v, want %v", ok, !tc.gone)
			}
			if ok && !slices.Equal(revisionsOf(got), tc.want) {
				t.Errorf("got %v, want %v", revisionsOf(got), tc.want)
			}
		})
	}
}

// The ring agrees with the naive model about every revision, after any history of events,
// transactions and resets.
func TestRingProperty(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		model := &naive{maxEvents: 1 + random.IntN(20), maxBytes: 1 + random.IntN(500)}
		var r ring[string]
		r.init(model.maxEvents, model.maxBytes)
		revision := int64(0)
		for range 300 {
			switch random.IntN(40) {
			case 0:
				revision += random.Int64N(5)
				r.reset(revision)
				model.events, model.sizes, model.since = nil, nil, revision
			default:
				revision += random.Int64N(3)
				revision = max(revision, model.since+1)
				event, size := &Event[string]{Revision: revision}, random.IntN(60)
				if got := r.at(r.append(event, size)); got != event {
					t.Fatalf("seed %d: the sequence of an event leads to another", seed)
				}
				model.append(event, size)
			}
			if r.bytes != sum(model.sizes) || int(r.next-r.first) != len(model.events) || r.since != model.since {
				t.Fatalf("seed %d: %d events of %d bytes since %d, want %d of %d since %d", seed,
					r.next-r.first, r.bytes, r.since, len(model.events), sum(model.sizes), model.since)
			}
			asked := revision - random.Int64N(30)
			got, gotOK := ringAfter(&r, asked)
			want, wantOK := model.after(asked)
			if gotOK != wantOK || !slices.Equal(got, want) {
				t.Fatalf("seed %d: after %d got %v %v, want %v %v", seed, asked, revisionsOf(got), gotOK, revisionsOf(want), wantOK)
			}
		}
	}
}

// What is dropped is not kept from being freed.
func TestRingForgets(t *testing.T) {
	var r ring[string]
	r.init(4, 25)
	for revision := range int64(10) {
		r.append(&Event[string]{Revision: revision}, 10)
	}
	kept := 0
	for _, slot := range r.slots {
		if slot.event != nil {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d events are referred to, want the 2 that fit", kept)
	}
}
