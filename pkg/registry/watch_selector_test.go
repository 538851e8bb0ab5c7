package registry_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
)

// Through a selector an object that comes into it is ADDED, one that leaves it DELETED as
// it was before.
func TestWatchBySelector(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	for name, tc := range map[string]struct {
		where, labels, fields string // where is "ns" or "": everywhere
		want                  []string
	}{
		"all of a namespace": {"ns", "", "", []string{"ADDED a1", "ADDED b1", "MODIFIED a2", "MODIFIED a3", "MODIFIED b2", "DELETED a4", "DELETED b3"}},
		"by label":           {"ns", "app=x", "", []string{"ADDED a1", "MODIFIED a2", "DELETED a3", "ADDED b2", "DELETED b3"}},
		"by absence":         {"ns", "app!=x", "", []string{"ADDED b1", "ADDED a3", "DELETED b2", "DELETED a4"}},
		"by a set":           {"ns", "app in (x,y)", "", []string{"ADDED a1", "ADDED b1", "MODIFIED a2", "MODIFIED a3", "MODIFIED b2", "DELETED a4", "DELETED b3"}},
		"by name":            {"ns", "", "metadata.name=b", []string{"ADDED b1", "MODIFIED b2", "DELETED b3"}},
		"by name and label":  {"ns", "app=x", "metadata.name=b", []string{"ADDED b2", "DELETED b3"}},
		"by another name":    {"ns", "", "metadata.name!=a", []string{"ADDED b1", "MODIFIED b2", "DELETED b3"}},
		"by namespace":       {"", "app=x", "metadata.namespace=", []string{"ADDED c1"}},
	} {
		t.Run(name, func(t *testing.T) {
			begin := formatRevision(storeRevision(t))
			ns, versions := s.changeLabels(t)
			if tc.where == "ns" {
				tc.where = ns
			} else {
				tc.fields += ns + "-other"
			}
			w := startWatch(t, s.endpoints, tc.where, &metav1.ListOptions{ResourceVersion: begin, LabelSelector: tc.labels, FieldSelector: tc.fields})
			for _, want := range tc.want {
				kind, version, _ := strings.Cut(want, " ")
				w.expect(t, kind+" "+version[:1]+"@"+versions[version])
			}
			// Nothing else has come before what comes now.
			app := "x"
			if strings.Contains(tc.labels, "!=") {
				app = "y"
			}
			namespace := ns
			if tc.where == "" {
				namespace += "-other"
			}
			last := s.create(t, namespace, labelled("b", app))
			w.expect(t, "ADDED b@"+last.ResourceVersion)
		})
	}
}

// changeLabels has objects change their labels in a new namespace ns, and one appear in
// another, called ns-other. It returns the versions: a2 is that of the second change of a.
func (s *stores) changeLabels(t *testing.T) (ns string, versions map[string]string) {
	t.Helper()
	ns = s.newNamespace(t)
	other := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns + "-other"}}
	if _, _, err := s.namespaces.Create(t.Context(), "", other, createOptions()); err != nil {
		t.Fatal(err)
	}
	versions = map[string]string{}
	a := s.create(t, ns, labelled("a", "x"))
	b := s.create(t, ns, labelled("b", "y"))
	versions["a1"], versions["b1"] = a.ResourceVersion, b.ResourceVersion
	versions["c1"] = s.create(t, other.Name, labelled("c", "x")).ResourceVersion
	a.Annotations = map[string]string{"n": "1"}
	a = s.update(t, a)
	versions["a2"] = a.ResourceVersion
	a.Labels["app"] = "y"
	versions["a3"] = s.update(t, a).ResourceVersion
	b.Labels["app"] = "x"
	versions["b2"] = s.update(t, b).ResourceVersion
	versions["a4"], versions["b3"] = s.delete(t, ns, "a"), s.delete(t, ns, "b")
	return ns, versions
}

// What leaves a selector is seen in two states by watchers of one event: each gets its own,
// which is made once for all who see the same.
func TestWatchersOfOneEventSeeTheirOwnState(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	created := s.create(t, ns, labelled("a", "x"))
	from := func(selector string) *watching {
		return startWatch(t, s.endpoints, ns, &metav1.ListOptions{ResourceVersion: created.ResourceVersion, LabelSelector: selector})
	}
	watches := []*watching{from("app=x"), from("app!=y"), from(""), from("")}
	changed := created.DeepCopy()
	changed.Labels["app"] = "y"
	changed = s.update(t, changed)
	before := created.DeepCopy()
	before.ResourceVersion = changed.ResourceVersion
	events := make([]object.Event, len(watches))
	for i, w := range watches {
		var err error
		if events[i], err = w.next(t); err != nil {
			t.Fatal(err)
		}
		want := changed
		if i < 2 {
			want = before
		}
		if diff := cmp.Diff(want, typed[*corev1.Endpoints](t, events[i].Object)); diff != "" {
			t.Errorf("watch %d, %s (-want +got):\n%s", i, events[i].Type, diff)
		}
	}
	if events[0].Object != events[1].Object || events[2].Object != events[3].Object {
		t.Error("an object was made for each watch")
	}
}
