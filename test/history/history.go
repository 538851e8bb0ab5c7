// Package history holds what clients saw of a collection against what became of it: the properties
// of watches that etcd's robustness tests name (tests/robustness/validate/watch.go), at the level of
// the API, with the resourceVersion for the revision.
package history

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// WrittenBy is the annotation that tells who made an object what it is.
	WrittenBy = "written-by"
	// Half is the label that puts an object in half a or half b.
	Half = "half"
)

// State is what a history knows of an object: who it is and which write made it so.
type State struct {
	Name    string
	UID     types.UID
	Written string // by whom and when; no two writes have the same
	Half    string // the label that selectors look at
}

// StateOf returns the state of an object.
func StateOf(object *corev1.Endpoints) State {
	return State{object.Name, object.UID, object.Annotations[WrittenBy], object.Labels[Half]}
}

// Change is one event of a watch, or one of the history.
type Change struct {
	Event   watch.EventType
	Version int64
	State   // after the change, or before it for a deletion; empty in a bookmark
}

func (c Change) String() string {
	return fmt.Sprintf("%s %s at %d (written by %s)", c.Event, c.Name, c.Version, c.Written)
}

// History is every change of a collection, in the order of the versions.
type History []Change

// At is the collection as of a version.
func (h History) At(version int64) map[string]State {
	all := map[string]State{}
	for _, c := range h {
		if c.Version > version {
			break
		}
		if c.Event == watch.Deleted {
			delete(all, c.Name)
		} else {
			all[c.Name] = c.State
		}
	}
	return all
}

// through is the history as a watch with the selector shows it.
func (h History) through(selector labels.Selector) History {
	var seen History
	selected := map[string]State{}
	for _, c := range h {
		was, wasSelected := selected[c.Name]
		is := c.Event != watch.Deleted && selector.Matches(labels.Set{Half: c.Half})
		switch {
		case is && wasSelected:
			seen = append(seen, Change{watch.Modified, c.Version, c.State})
		case is:
			seen = append(seen, Change{watch.Added, c.Version, c.State})
		case wasSelected:
			seen = append(seen, Change{watch.Deleted, c.Version, was})
		}
		delete(selected, c.Name)
		if is {
			selected[c.Name] = c.State
		}
	}
	return seen
}

// Consistent checks that the history is one: versions grow, objects appear once before
// they change, and change before they go.
func (h History) Consistent() error {
	last := int64(0)
	now := map[string]State{}
	for _, c := range h {
		was, exists := now[c.Name]
		switch {
		case c.Version <= last:
			return fmt.Errorf("ordered: %v comes after version %d", c, last)
		case exists == (c.Event == watch.Added):
			return fmt.Errorf("reliable: %v, but the object exists: %v", c, exists)
		case exists && was.UID != c.UID:
			return fmt.Errorf("reliable: %v is of another object than the one before", c)
		case c.Event == watch.Deleted && was != c.State:
			return fmt.Errorf("reliable: %v shows %+v, but the object was %+v", c, c.State, was)
		}
		last = c.Version
		if c.Event == watch.Deleted {
			delete(now, c.Name)
		} else {
			now[c.Name] = c.State
		}
	}
	return nil
}

// Connection is what one watch delivered.
type Connection struct {
	From    int64 // the version that was asked for
	Initial bool  // it was asked to begin with what is there
	Changes []Change
}

// Verify holds the connections of one watcher, each of which went on where the one before
// had ended, against what it should have seen. all is the whole history, for the initial
// state; the errors begin with the property that is violated.
func Verify(all History, selector labels.Selector, connections []Connection) error {
	want := all.through(selector)
	seen := map[int64]bool{}
	position := connections[0].From
	for i, c := range connections {
		if c.From != position {
			return fmt.Errorf("connection %d began at %d, but the one before had come to %d", i, c.From, position)
		}
		rest := c.Changes
		if c.Initial {
			var err error
			if position, rest, err = verifyInitial(all, selector, rest); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		for n, got := range rest {
			next := want.after(position)
			switch {
			case got.Event == watch.Bookmark && got.Version < position:
				return fmt.Errorf("bookmarkable: connection %d has a bookmark at %d after version %d", i, got.Version, position)
			case got.Event == watch.Bookmark && next != nil && next.Version <= got.Version:
				return fmt.Errorf("bookmarkable: connection %d has a bookmark at %d before %v", i, got.Version, next)
			case got.Event == watch.Bookmark:
			case seen[got.Version]:
				return fmt.Errorf("unique: connection %d saw %v again", i, got)
			case got.Version <= position:
				return fmt.Errorf("ordered: connection %d saw %v after version %d", i, got, position)
			case next == nil || got.Version < next.Version || got.Version == next.Version && got != *next:
				return fmt.Errorf("reliable: connection %d saw %v, want %v", i, got, next)
			case got.Version > next.Version && n == 0 && !c.Initial:
				return fmt.Errorf("resumable: connection %d from %d began with %v, and left out %v", i, c.From, got, next)
			case got.Version > next.Version:
				return fmt.Errorf("reliable: connection %d saw %v, and left out %v", i, got, next)
			}
			if got.Event != watch.Bookmark {
				seen[got.Version] = true
			}
			position = got.Version
		}
	}
	return nil
}

// after is the first change after a version, nil where there is none.
func (h History) after(version int64) *Change {
	i, found := slices.BinarySearchFunc(h, version, func(c Change, v int64) int { return int(c.Version - v) })
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
func verifyInitial(all History, selector labels.Selector, changes []Change) (version int64, rest []Change, err error) {
	end := slices.IndexFunc(changes, func(c Change) bool { return c.Event == watch.Bookmark })
	if end < 0 {
		return 0, nil, fmt.Errorf("bookmarkable: no bookmark ends the initial events")
	}
	version = changes[end].Version
	got := map[string]State{}
	for _, c := range changes[:end] {
		if c.Event != watch.Added {
			return 0, nil, fmt.Errorf("atomic: %v is among the initial events", c)
		}
		if _, twice := got[c.Name]; twice {
			return 0, nil, fmt.Errorf("unique: %v is among the initial events twice", c)
		}
		got[c.Name] = c.State
	}
	want := all.At(version)
	maps.DeleteFunc(want, func(_ string, s State) bool { return !selector.Matches(labels.Set{Half: s.Half}) })
	if !maps.Equal(want, got) {
		return 0, nil, fmt.Errorf("atomic: the initial events are %v, but the state at %d was %v", got, version, want)
	}
	return version, changes[end+1:], nil
}

// WithoutBookmarks returns the history without what is not a change.
func (h History) WithoutBookmarks() History {
	var changes History
	for _, c := range h {
		if c.Event != watch.Bookmark {
			changes = append(changes, c)
		}
	}
	return changes
}
