package clients

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// state is what a history knows of an object: who it is and which write made it so.
type state struct {
	name    string
	uid     types.UID
	written string // by whom and when; no two writes have the same
	half    string // the label that selectors look at
}

func stateOf(object *corev1.Endpoints) state {
	return state{object.Name, object.UID, object.Annotations[writtenBy], object.Labels[half]}
}

// change is one event of a watch, or one of the history.
type change struct {
	event   watch.EventType
	version int64
	state   // after the change, or before it for a deletion; empty in a bookmark
}

func (c change) String() string {
	return fmt.Sprintf("%s %s at %d (written by %s)", c.event, c.name, c.version, c.written)
}

// history is every change of a collection, in the order of the versions.
type history []change

// at is the collection as of a version.
func (h history) at(version int64) map[string]state {
	all := map[string]state{}
	for _, c := range h {
		if c.version > version {
			break
		}
		if c.event == watch.Deleted {
			delete(all, c.name)
		} else {
			all[c.name] = c.state
		}
	}
	return all
}

// through is the history as a watch with the selector shows it.
func (h history) through(selector labels.Selector) history {
	var seen history
	selected := map[string]state{}
	for _, c := range h {
		was, wasSelected := selected[c.name]
		is := c.event != watch.Deleted && selector.Matches(labels.Set{half: c.half})
		switch {
		case is && wasSelected:
			seen = append(seen, change{watch.Modified, c.version, c.state})
		case is:
			seen = append(seen, change{watch.Added, c.version, c.state})
		case wasSelected:
			seen = append(seen, change{watch.Deleted, c.version, was})
		}
		delete(selected, c.name)
		if is {
			selected[c.name] = c.state
		}
	}
	return seen
}

// consistent checks that the history is one: versions grow, objects appear once before
// they change, and change before they go.
func (h history) consistent() error {
	last := int64(0)
	now := map[string]state{}
	for _, c := range h {
		was, exists := now[c.name]
		switch {
		case c.version <= last:
			return fmt.Errorf("Ordered: %v comes after version %d", c, last)
		case exists == (c.event == watch.Added):
			return fmt.Errorf("Reliable: %v, but the object exists: %v", c, exists)
		case exists && was.uid != c.uid:
			return fmt.Errorf("Reliable: %v is of another object than the one before", c)
		case c.event == watch.Deleted && was != c.state:
			return fmt.Errorf("Reliable: %v shows %+v, but the object was %+v", c, c.state, was)
		}
		last = c.version
		if c.event == watch.Deleted {
			delete(now, c.name)
		} else {
			now[c.name] = c.state
		}
	}
	return nil
}

// connection is what one watch delivered.
type connection struct {
	from    int64 // the version that was asked for
	initial bool  // it was asked to begin with what is there
	changes []change
}

// verify holds the connections of one watcher, each of which went on where the one before
// had ended, against what it should have seen. all is the whole history, for the initial
// state; the errors begin with the property that is violated.
func verify(all history, selector labels.Selector, connections []connection) error {
	want := all.through(selector)
	seen := map[int64]bool{}
	position := connections[0].from
	for i, c := range connections {
		if c.from != position {
			return fmt.Errorf("connection %d began at %d, but the one before had come to %d", i, c.from, position)
		}
		rest := c.changes
		if c.initial {
			var err error
			if position, rest, err = verifyInitial(all, selector, rest); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		for n, got := range rest {
			next := want.after(position)
			switch {
			case got.event == watch.Bookmark && got.version < position:
				return fmt.Errorf("Bookmarkable: connection %d has a bookmark at %d after version %d", i, got.version, position)
			case got.event == watch.Bookmark && next != nil && next.version <= got.version:
				return fmt.Errorf("Bookmarkable: connection %d has a bookmark at %d before %v", i, got.version, next)
			case got.event == watch.Bookmark:
			case seen[got.version]:
				return fmt.Errorf("Unique: connection %d saw %v again", i, got)
			case got.version <= position:
				return fmt.Errorf("Ordered: connection %d saw %v after version %d", i, got, position)
			case next == nil || got.version < next.version || got.version == next.version && got != *next:
				return fmt.Errorf("Reliable: connection %d saw %v, want %v", i, got, next)
			case got.version > next.version && n == 0 && !c.initial:
				return fmt.Errorf("Resumable: connection %d from %d began with %v, and left out %v", i, c.from, got, next)
			case got.version > next.version:
				return fmt.Errorf("Reliable: connection %d saw %v, and left out %v", i, got, next)
			}
			if got.event != watch.Bookmark {
				seen[got.version] = true
			}
			position = got.version
		}
	}
	return nil
}

// after is the first change after a version, nil where there is none.
func (h history) after(version int64) *change {
	i, found := slices.BinarySearchFunc(h, version, func(c change, v int64) int { return int(c.version - v) })
	if found {
		i++
	}
	if i == len(h) {
		return nil
	}
	return &h[i]
}

// verifyInitial holds the initial events against the state as of the bookmark that ends
// them, and returns its version and what follows.
func verifyInitial(all history, selector labels.Selector, changes []change) (version int64, rest []change, err error) {
	end := slices.IndexFunc(changes, func(c change) bool { return c.event == watch.Bookmark })
	if end < 0 {
		return 0, nil, fmt.Errorf("Bookmarkable: no bookmark ends the initial events")
	}
	version = changes[end].version
	got := map[string]state{}
	for _, c := range changes[:end] {
		if c.event != watch.Added {
			return 0, nil, fmt.Errorf("Atomic: %v is among the initial events", c)
		}
		if _, twice := got[c.name]; twice {
			return 0, nil, fmt.Errorf("Unique: %v is among the initial events twice", c)
		}
		got[c.name] = c.state
	}
	want := all.at(version)
	maps.DeleteFunc(want, func(_ string, s state) bool { return !selector.Matches(labels.Set{half: s.half}) })
	if !maps.Equal(want, got) {
		return 0, nil, fmt.Errorf("Atomic: the initial events are %v, but the state at %d was %v", got, version, want)
	}
	return version, changes[end+1:], nil
}

// The checks find what they are for.
func TestVerify(t *testing.T) {
	t.Parallel()
	at := func(event watch.EventType, version int64, name, label string) change {
		return change{event, version, state{name: name, written: fmt.Sprint(version), half: label}}
	}
	deleted := at(watch.Deleted, 5, "one", "a")
	deleted.written = "3"
	all := history{
		at(watch.Added, 1, "one", "a"), at(watch.Added, 2, "two", "b"), at(watch.Modified, 3, "one", "a"),
		at(watch.Modified, 4, "two", "a"), deleted,
	}
	if err := all.consistent(); err != nil {
		t.Fatal(err)
	}
	bookmark := func(version int64) change { return change{event: watch.Bookmark, version: version} }
	whole := func(changes ...change) []connection { return []connection{{changes: changes}} }
	begun := func(changes ...change) []connection { return []connection{{initial: true, changes: changes}} }
	entered := at(watch.Added, 4, "two", "a")
	for name, test := range map[string]struct {
		selector    string
		connections []connection
		want        string // the property, empty: none is violated
	}{
		"all":                       {"", whole(all...), ""},
		"in parts":                  {"", []connection{{0, false, all[:2]}, {2, false, all[2:3]}, {3, false, all[3:]}}, ""},
		"bookmarks":                 {"", whole(all[0], bookmark(1), all[1], bookmark(2), bookmark(2)), ""},
		"selected":                  {"half=a", whole(all[0], all[2], entered, deleted), ""},
		"from the initial state":    {"", begun(all[0], all[1], bookmark(2), all[2]), ""},
		"out of order":              {"", whole(all[0], all[2], all[1]), "Reliable"},
		"backwards":                 {"", []connection{{1, false, all[1:2]}, {2, false, all[:1]}}, "Ordered"},
		"twice":                     {"", whole(all[0], all[1], all[1]), "Unique"},
		"again after reconnecting":  {"", []connection{{0, false, all[:2]}, {2, false, all[1:]}}, "Unique"},
		"left out":                  {"", whole(all[0], all[2]), "Reliable"},
		"left out at the start":     {"", []connection{{1, false, all[2:]}}, "Resumable"},
		"made up":                   {"half=a", whole(all[0], all[1]), "Reliable"},
		"of the wrong type":         {"half=a", whole(all[0], all[2], all[3]), "Reliable"},
		"another state":             {"", whole(at(watch.Added, 1, "one", "b")), "Reliable"},
		"a bookmark too early":      {"", whole(all[0], bookmark(2), all[1]), "Bookmarkable"},
		"a bookmark too late":       {"", whole(all[0], all[1], bookmark(1)), "Bookmarkable"},
		"no bookmark":               {"", begun(all[0]), "Bookmarkable"},
		"half of the initial state": {"", begun(all[1], bookmark(2)), "Atomic"},
		"more than it":              {"", begun(all[0], all[1], bookmark(1)), "Atomic"},
		"a change of it":            {"", begun(all[0], all[2], bookmark(3)), "Atomic"},
	} {
		selector, err := labels.Parse(test.selector)
		if err != nil {
			t.Fatal(err)
		}
		err = verify(all, selector, test.connections)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want+":")) {
			t.Errorf("%s: got %v, want a violation of %q", name, err, test.want)
		}
	}
	for name, broken := range map[string]history{
		"backwards":               {all[1], all[0]},
		"changed before added":    {all[2]},
		"added twice":             {all[0], at(watch.Added, 2, "one", "a")},
		"deleted in an old state": {all[0], all[2], at(watch.Deleted, 5, "one", "b")},
	} {
		if broken.consistent() == nil {
			t.Errorf("a history that is %s counts as consistent", name)
		}
	}
}
