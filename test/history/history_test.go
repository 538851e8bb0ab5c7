package history

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
)

// The checks find what they are for.
func TestVerify(t *testing.T) {
	t.Parallel()
	at := func(event watch.EventType, version int64, name, label string) Change {
		return Change{event, version, State{Name: name, Written: fmt.Sprint(version), Half: label}}
	}
	deleted := at(watch.Deleted, 5, "one", "a")
	deleted.Written = "3"
	all := History{
		at(watch.Added, 1, "one", "a"), at(watch.Added, 2, "two", "b"), at(watch.Modified, 3, "one", "a"),
		at(watch.Modified, 4, "two", "a"), deleted,
	}
	if err := all.Consistent(); err != nil {
		t.Fatal(err)
	}
	bookmark := func(version int64) Change { return Change{Event: watch.Bookmark, Version: version} }
	whole := func(changes ...Change) []Connection { return []Connection{{Changes: changes}} }
	begun := func(changes ...Change) []Connection { return []Connection{{Initial: true, Changes: changes}} }
	entered := at(watch.Added, 4, "two", "a")
	for name, test := range map[string]struct {
		selector    string
		connections []Connection
		want        string // the property, empty: none is violated
	}{
		"all":                       {"", whole(all...), ""},
		"in parts":                  {"", []Connection{{0, false, all[:2]}, {2, false, all[2:3]}, {3, false, all[3:]}}, ""},
		"bookmarks":                 {"", whole(all[0], bookmark(1), all[1], bookmark(2), bookmark(2)), ""},
		"selected":                  {"half=a", whole(all[0], all[2], entered, deleted), ""},
		"from the initial state":    {"", begun(all[0], all[1], bookmark(2), all[2]), ""},
		"out of order":              {"", whole(all[0], all[2], all[1]), "reliable"},
		"backwards":                 {"", []Connection{{1, false, all[1:2]}, {2, false, all[:1]}}, "ordered"},
		"twice":                     {"", whole(all[0], all[1], all[1]), "unique"},
		"again after reconnecting":  {"", []Connection{{0, false, all[:2]}, {2, false, all[1:]}}, "unique"},
		"left out":                  {"", whole(all[0], all[2]), "reliable"},
		"left out at the start":     {"", []Connection{{1, false, all[2:]}}, "resumable"},
		"made up":                   {"half=a", whole(all[0], all[1]), "reliable"},
		"of the wrong type":         {"half=a", whole(all[0], all[2], all[3]), "reliable"},
		"another state":             {"", whole(at(watch.Added, 1, "one", "b")), "reliable"},
		"a bookmark too early":      {"", whole(all[0], bookmark(2), all[1]), "bookmarkable"},
		"a bookmark too late":       {"", whole(all[0], all[1], bookmark(1)), "bookmarkable"},
		"no bookmark":               {"", begun(all[0]), "bookmarkable"},
		"half of the initial state": {"", begun(all[1], bookmark(2)), "atomic"},
		"more than it":              {"", begun(all[0], all[1], bookmark(1)), "atomic"},
		"a change of it":            {"", begun(all[0], all[2], bookmark(3)), "atomic"},
	} {
		selector, err := labels.Parse(test.selector)
		if err != nil {
			t.Fatal(err)
		}
		err = Verify(all, selector, test.connections)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want+":")) {
			t.Errorf("%s: got %v, want a violation of %q", name, err, test.want)
		}
	}
	for name, broken := range map[string]History{
		"backwards":               {all[1], all[0]},
		"changed before added":    {all[2]},
		"added twice":             {all[0], at(watch.Added, 2, "one", "a")},
		"deleted in an old state": {all[0], all[2], at(watch.Deleted, 5, "one", "b")},
	} {
		if broken.Consistent() == nil {
			t.Errorf("a history that is %s counts as consistent", name)
		}
	}
}
