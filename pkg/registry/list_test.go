package registry_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// list is a list that must succeed.
func (s *stores) list(t testing.TB, namespace string, opts metav1.ListOptions) *corev1.EndpointsList {
	t.Helper()
	obj, _, err := s.endpoints.List(t.Context(), namespace, &opts)
	if err != nil {
		t.Fatalf("listing with %v: %v", opts, err)
	}
	return typed[*corev1.EndpointsList](t, obj)
}

// createNumbered creates n objects, of which every second has the label odd, and returns
// their names.
func (s *stores) createNumbered(t testing.TB, namespace string, n int) (names []string) {
	t.Helper()
	for i := range n {
		obj := newEndpoints(fmt.Sprintf("e-%03d", i))
		if i%2 == 1 {
			obj.Labels = map[string]string{"odd": "true"}
		}
		s.create(t, namespace, obj)
		names = append(names, obj.Name)
	}
	return names
}

// All pages of a list show the state of the first, whatever is written meanwhile.
func TestPagesAreOneSnapshot(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	for name, tc := range map[string]struct {
		selector  string
		limit     int64
		want      func(i int) bool
		remaining []int64 // page by page; -1: not told
	}{
		"everything":     {"", 3, func(int) bool { return true }, []int64{7, 4, 1, -1}},
		"an exact end":   {"", 5, func(int) bool { return true }, []int64{5, -1}},
		"more than all":  {"", 11, func(int) bool { return true }, []int64{-1}},
		"by a selector":  {"odd=true", 2, func(i int) bool { return i%2 == 1 }, []int64{-1, -1, -1}},
		"nothing at all": {"none=true", 2, func(int) bool { return false }, []int64{-1}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := s.newNamespace(t)
			names := s.createNumbered(t, ns, 10)
			var want, got []string
			for i, name := range names {
				if tc.want(i) {
					want = append(want, name)
				}
			}
			opts := metav1.ListOptions{Limit: tc.limit, LabelSelector: tc.selector}
			var remaining []int64
			version := ""
			for page := 0; page == 0 || opts.Continue != ""; page++ {
				list := s.list(t, ns, opts)
				if got = append(got, namesOf(list)...); page == 0 {
					version = list.ResourceVersion
					s.delete(t, ns, "e-009")
					s.delete(t, ns, "e-001")
					s.create(t, ns, newEndpoints("e-0055"))
				}
				if list.ResourceVersion != version {
					t.Errorf("page %d is of version %s, the first of %s", page, list.ResourceVersion, version)
				}
				left := int64(-1)
				if list.RemainingItemCount != nil {
					left = *list.RemainingItemCount
				}
				remaining, opts.Continue = append(remaining, left), list.Continue
			}
			if !slices.Equal(got, want) {
				t.Errorf("listed %v, want %v", got, want)
			}
			if !slices.Equal(remaining, tc.remaining) {
				t.Errorf("remaining %v, want %v", remaining, tc.remaining)
			}
		})
	}
}

// A full page is followed by another as long as there are objects behind it, selected or not, as
// with kube-apiserver.
func TestPageBeforeWhatIsNotSelected(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	selected := newEndpoints("a")
	selected.Labels = map[string]string{"app": "a"}
	s.create(t, ns, selected)
	opts := metav1.ListOptions{Limit: 1, LabelSelector: "app=a"}
	if list := s.list(t, ns, opts); list.Continue != "" || len(namesOf(list)) != 1 {
		t.Errorf("with nothing behind it: %v, continue %q", namesOf(list), list.Continue)
	}
	s.create(t, ns, newEndpoints("b"))
	list := s.list(t, ns, opts)
	if list.Continue == "" || len(namesOf(list)) != 1 {
		t.Fatalf("with another behind it: %v, continue %q", namesOf(list), list.Continue)
	}
	opts.Continue = list.Continue
	if list := s.list(t, ns, opts); list.Continue != "" || len(namesOf(list)) != 0 {
		t.Errorf("the last page: %v, continue %q", namesOf(list), list.Continue)
	}
}

// A list of an exact version shows that version, and is told from one that is at least so
// new.
func TestListVersions(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	var versions []string
	for _, name := range []string{"a", "b", "c"} {
		versions = append(versions, s.create(t, ns, newEndpoints(name)).ResourceVersion)
	}
	versions = append(versions, s.delete(t, ns, "a"))
	states := [][]string{{"a"}, {"a", "b"}, {"a", "b", "c"}, {"b", "c"}}
	newest, onlyA := states[3], [][]string{{"a"}, {"a"}, {"a"}, {}}
	for i, version := range versions {
		for name, tc := range map[string]struct {
			opts  metav1.ListOptions
			want  []string
			exact bool
		}{
			"exact":                {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact}, states[i], true},
			"exact page":           {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 2}, states[i][:min(2, len(states[i]))], true},
			"page, as of old":      {metav1.ListOptions{Limit: 2}, states[i][:min(2, len(states[i]))], true},
			"not older":            {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, newest, false},
			"page, not older":      {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, Limit: 1}, newest[:1], false},
			"at least, as of old":  {metav1.ListOptions{}, newest, false},
			"exact, by a name":     {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact, FieldSelector: "metadata.name=a"}, onlyA[i], true},
			"exact, in everything": {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact, FieldSelector: "metadata.namespace=" + ns}, states[i], true},
		} {
			// The cache must have all of it, for what does not wait.
			s.list(t, ns, metav1.ListOptions{})
			tc.opts.ResourceVersion = version
			where := ns
			if name == "exact, in everything" {
				where = ""
			}
			list := s.list(t, where, tc.opts)
			if got := namesOf(list); !slices.Equal(got, tc.want) {
				t.Errorf("%s at %d: %v, want %v", name, i, got, tc.want)
			}
			if tc.exact && list.ResourceVersion != version {
				t.Errorf("%s at %d: version %s of %s", name, i, list.ResourceVersion, version)
			}
		}
	}
	future := formatRevision(storeRevision(t) + 1_000_000)
	_, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{ResourceVersion: future, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	checkStatus(t, err, 504, "Too large resource version: "+future)
}

// A page that a selector makes sparse is looked for through many keys of the store.
func TestSparsePageOfAnOldVersion(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	const many = 1100 // more than two reads of the store
	for i := range many {
		put(t, s.endpoints.Key(ns, fmt.Sprintf("f-%04d", i)), fmt.Appendf(nil, `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"f-%04d","namespace":%q,"labels":{"last":"%v"}}}`, i, ns, i >= many-2))
	}
	version := formatRevision(storeRevision(t))
	remove(t, s.endpoints.Key(ns, "f-1099"))
	opts := metav1.ListOptions{LabelSelector: "last=true", Limit: 1, ResourceVersion: version}
	first := s.list(t, ns, opts)
	second := s.list(t, ns, metav1.ListOptions{LabelSelector: "last=true", Limit: 1, Continue: first.Continue})
	if got := slices.Concat(namesOf(first), namesOf(second)); !slices.Equal(got, []string{"f-1098", "f-1099"}) || second.Continue != "" {
		t.Errorf("listed %v, continue %q", got, second.Continue)
	}
	page := s.list(t, ns, metav1.ListOptions{Limit: 600, ResourceVersion: version})
	if len(page.Items) != 600 || page.RemainingItemCount == nil || *page.RemainingItemCount != many-600 {
		t.Errorf("%d items, remaining %v", len(page.Items), page.RemainingItemCount)
	}
}

func TestBadContinueTokens(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	token := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for name, tc := range map[string]struct {
		opts metav1.ListOptions
		code int32
		text string
	}{
		"no base64":         {metav1.ListOptions{Continue: "%%%"}, 400, "continue key is not valid"},
		"no JSON":           {metav1.ListOptions{Continue: token("x")}, 400, "continue key is not valid"},
		"another version":   {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v9","rv":5,"start":"/a"}`)}, 400, "does not recognize"},
		"no revision":       {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","start":"/a"}`)}, 400, "incorrect encoded start resourceVersion"},
		"no place":          {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":5}`)}, 400, "not within"},
		"a relative place":  {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":5,"start":"a"}`)}, 400, "not within"},
		"out of the prefix": {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":5,"start":"/a/../../b"}`)}, 400, "not within"},
		"with a version":    {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":5,"start":"/a"}`), ResourceVersion: "5"}, 400, "not allowed when using continue"},
		"with a match":      {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":5,"start":"/a"}`), ResourceVersion: "5", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, 422, "resourceVersionMatch"},
		"a future version":  {metav1.ListOptions{Continue: token(`{"v":"meta.k8s.io/v1","rv":900000000,"start":"/a"}`)}, 504, "Too large resource version"},
		"match of nothing":  {metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact}, 422, "resourceVersionMatch"},
		"exactly zero":      {metav1.ListOptions{ResourceVersion: "0", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, 422, "resourceVersionMatch"},
		"initial events":    {metav1.ListOptions{SendInitialEvents: new(bool)}, 422, "sendInitialEvents"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.endpoints.List(t.Context(), ns, &tc.opts)
			checkStatus(t, err, tc.code, tc.text)
		})
	}
}

func TestWatchRefusesBadOptions(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	yes := true
	for name, tc := range map[string]struct {
		opts metav1.ListOptions
		code int32
		text string
	}{
		"label selector":    {metav1.ListOptions{LabelSelector: "a=b=c"}, 400, "found '='"},
		"field selector":    {metav1.ListOptions{FieldSelector: "metadata.name"}, 400, "invalid selector"},
		"unknown field":     {metav1.ListOptions{FieldSelector: "spec.x=1"}, 400, "not a known field selector"},
		"version":           {metav1.ListOptions{ResourceVersion: "x"}, 400, "invalid resource version"},
		"negative version":  {metav1.ListOptions{ResourceVersion: "-1"}, 400, "invalid resource version"},
		"match":             {metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, 422, "resourceVersionMatch"},
		"continue":          {metav1.ListOptions{Continue: "abc"}, 422, "resourceVersionMatch is forbidden when continue is provided"},
		"no match to begin": {metav1.ListOptions{SendInitialEvents: &yes}, 422, "resourceVersionMatch"},
	} {
		_, _, err := s.endpoints.Watch(t.Context(), "", &tc.opts)
		if status := checkStatus(t, err, tc.code, tc.text); status.Status != metav1.StatusFailure {
			t.Errorf("%s: %v", name, status)
		}
	}
}

// newOwnStores returns a running registry over an etcd of its own, which a test may compact.
func newOwnStores(t testing.TB) (*stores, *embedded.Etcd) {
	t.Helper()
	store, db := newOwnStorage(t)
	return newStores(t, store), db
}

func newOwnStorage(t testing.TB) (storage.Interface, *embedded.Etcd) {
	t.Helper()
	db, err := embedded.Start(t.Context(), embedded.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := etcd.New(db.Client(), etcd.Config{MaxValueBytes: embedded.MaxValueBytes})
	if err != nil {
		t.Fatal(err)
	}
	return store, db
}

func compact(t testing.TB, db *embedded.Etcd) {
	t.Helper()
	now, err := db.Client().Get(t.Context(), "x")
	if err == nil {
		_, err = db.Client().Compact(t.Context(), now.Header.GetRevision())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A list whose version is compacted goes on with the token of the 410, in the newest state.
func TestExpiredContinue(t *testing.T) {
	t.Parallel()
	s, db := newOwnStores(t)
	ns := s.newNamespace(t)
	s.createNumbered(t, ns, 6)
	first := s.list(t, ns, metav1.ListOptions{Limit: 2})
	for _, name := range []string{"e-001", "e-003"} {
		if _, _, err := s.endpoints.Delete(t.Context(), ns, name, &metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.create(t, ns, newEndpoints("e-0015"))
	s.create(t, ns, newEndpoints("e-0025"))
	compact(t, db)
	_, _, err := s.endpoints.List(t.Context(), ns, &metav1.ListOptions{Limit: 2, Continue: first.Continue})
	status := checkStatus(t, err, 410, "The provided continue parameter is too old")
	if status.Reason != metav1.StatusReasonExpired || status.Continue == "" {
		t.Fatalf("reason %s, continue %q", status.Reason, status.Continue)
	}
	got := namesOf(first)
	opts := metav1.ListOptions{Limit: 2, Continue: status.Continue}
	for opts.Continue != "" {
		list := s.list(t, ns, opts)
		if list.ResourceVersion == "" || list.ResourceVersion == "-1" {
			t.Errorf("a page has the version %q", list.ResourceVersion)
		}
		got, opts.Continue = append(got, namesOf(list)...), list.Continue
	}
	if want := []string{"e-000", "e-001", "e-0015", "e-002", "e-0025", "e-004", "e-005"}; !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	_, _, err = s.endpoints.List(t.Context(), ns, &metav1.ListOptions{ResourceVersion: first.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if checkStatus(t, err, 410, "too old"); !apierrors.IsResourceExpired(err) {
		t.Errorf("got %v", err)
	}
}

// Selectors work the same on a list from memory and on one from the store.
func TestListBySelector(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns, other := s.newNamespace(t), s.newNamespace(t)
	s.createNumbered(t, ns, 4)
	s.createNumbered(t, other, 2)
	s.create(t, ns, newEndpoints("e-0"))
	version := formatRevision(storeRevision(t))
	for _, tc := range []struct {
		namespace, labels, fields string
		want                      []string
	}{
		{ns, "odd=true", "", []string{"e-001", "e-003"}},
		{ns, "!odd", "", []string{"e-0", "e-000", "e-002"}},
		{ns, "odd", "metadata.name=e-001", []string{"e-001"}},
		{ns, "", "metadata.name=e-0", []string{"e-0"}},
		{ns, "", "metadata.name=e-00", []string{}},
		{ns, "", "metadata.name!=e-0,metadata.name!=e-001", []string{"e-000", "e-002", "e-003"}},
		{ns, "", "metadata.namespace=" + other, []string{}},
		{"", "odd", "metadata.namespace=" + other, []string{"e-001"}},
		{"", "", "metadata.name=e-0,metadata.namespace=" + ns, []string{"e-0"}},
	} {
		for _, opts := range []metav1.ListOptions{{}, {ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact}} {
			opts.LabelSelector, opts.FieldSelector = tc.labels, tc.fields
			list := s.list(t, tc.namespace, opts)
			if diff := cmp.Diff(tc.want, namesOf(list)); diff != "" {
				t.Errorf("%q %q in %q at %q (-want +got):\n%s", tc.labels, tc.fields, tc.namespace, opts.ResourceVersion, diff)
			}
		}
	}
}

// BenchmarkPageOf500 is a page from memory out of 20,000 objects.
func BenchmarkPageOf500(b *testing.B) {
	s := newStores(b, shared.store)
	ns := s.newNamespace(b)
	value := func(i int) []byte {
		return fmt.Appendf(nil, `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"f-%05d","namespace":%q},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`, i, ns)
	}
	for i := range 20_000 {
		if _, err := shared.store.Put(b.Context(), s.endpoints.Key(ns, fmt.Sprintf("f-%05d", i)), value(i), storage.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.endpoints.List(b.Context(), ns, &metav1.ListOptions{Limit: 500}); err != nil {
			b.Fatal(err)
		}
	}
}
