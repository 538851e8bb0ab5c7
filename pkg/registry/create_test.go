package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

func TestCreateFillsInWhatOnlyTheServerKnows(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj := newEndpoints("a")
	sent := fullMeta("a", "", "/elsewhere")
	sent.GenerateName, sent.ResourceVersion = "", "abc"
	obj.ObjectMeta = sent
	created := s.create(t, ns, obj)
	switch {
	case len(created.UID) != 36 || created.UID == sent.UID:
		t.Errorf("uid %q, want a new one", created.UID)
	case created.CreationTimestamp.Equal(&sent.CreationTimestamp) || created.CreationTimestamp.IsZero():
		t.Errorf("creationTimestamp %v, want now", created.CreationTimestamp)
	case created.DeletionTimestamp != nil || created.DeletionGracePeriodSeconds != nil:
		t.Errorf("it is born deleted: %v", created.ObjectMeta)
	case created.SelfLink != "/api/v1/namespaces/"+ns+"/endpoints/a":
		t.Errorf("selfLink %q", created.SelfLink)
	case created.Namespace != ns || created.Generation != sent.Generation:
		t.Errorf("namespace %q, generation %d", created.Namespace, created.Generation)
	case len(created.ManagedFields) != 1 || created.ManagedFields[0].Manager != "test":
		t.Errorf("managedFields %v, want those of test alone", created.ManagedFields)
	case created.Subsets[0].Ports[0].Protocol != corev1.ProtocolTCP:
		t.Errorf("protocol %q, want the default", created.Subsets[0].Ports[0].Protocol)
	}
	kv := stored(t, s.endpoints.Key(ns, "a"))
	if kv == nil || created.ResourceVersion != revision(kv) || strings.Contains(string(kv.Value), `"resourceVersion":`) {
		t.Errorf("resourceVersion %s of %v", created.ResourceVersion, kv)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("taken"))
	for name, tc := range map[string]struct {
		change  func(*corev1.Endpoints)
		code    int32
		message string
	}{
		"taken":             {func(e *corev1.Endpoints) { e.Name = "taken" }, 409, `endpoints "taken" already exists`},
		"without a name":    {func(e *corev1.Endpoints) { e.Name = "" }, 422, "name or generateName is required"},
		"other namespace":   {func(e *corev1.Endpoints) { e.Namespace = "default" }, 400, "does not match the namespace sent on the request"},
		"resourceVersion":   {func(e *corev1.Endpoints) { e.ResourceVersion = "5" }, 422, "resourceVersion should not be set on objects to be created"},
		"empty subset":      {func(e *corev1.Endpoints) { e.Subsets[0].Addresses = nil }, 422, "must specify `addresses` or `notReadyAddresses`"},
		"bad generateName":  {func(e *corev1.Endpoints) { e.Name, e.GenerateName = "", "A_" }, 422, "metadata.generateName"},
		"invalid and taken": {func(e *corev1.Endpoints) { e.Name, e.Subsets[0].Addresses = "taken", nil }, 422, "subsets[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newEndpoints("b")
			tc.change(obj)
			_, _, err := s.endpoints.Create(t.Context(), ns, obj, createOptions())
			checkStatus(t, err, tc.code, tc.message)
		})
	}
	if kv := stored(t, s.endpoints.Key(ns, "b")); kv != nil {
		t.Errorf("a refused object was stored: %s", kv.Value)
	}
}

func TestCreateDropsDuplicateOwners(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	owner := func(uid types.UID) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "v1", Kind: "Service", Name: "o", UID: uid}
	}
	obj := newEndpoints("a")
	obj.OwnerReferences = []metav1.OwnerReference{owner("1"), owner("2"), owner("1"), owner("1")}
	created, warnings, err := s.endpoints.Create(t.Context(), ns, obj, createOptions())
	if err != nil {
		t.Fatal(err)
	}
	if owners := typed[*corev1.Endpoints](t, created).OwnerReferences; len(owners) != 2 {
		t.Errorf("owners %v, want two", owners)
	}
	if len(warnings) != 1 || !strings.HasSuffix(warnings[0], "duplicate UID(s) observed: 1, 1") {
		t.Errorf("warnings %q", warnings)
	}
}

// taking is a storage in which the first n names that are created under the prefix are
// taken a moment before.
func taking(t *testing.T, prefix string, n int) (store storage.Interface, tried *[]string) {
	tried = new([]string)
	f := &faulty{Interface: shared.store}
	f.put = func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			if *tried = append(*tried, name); len(*tried) <= n {
				put(t, key, []byte(canonicalHead+`"name":"`+name+`","uid":"another"}}`))
			}
		}
		return shared.store.Put(ctx, key, value, opts)
	}
	return f, tried
}

func TestGeneratedNamesThatAreTaken(t *testing.T) {
	ns := newStores(t, shared.store).newNamespace(t)
	for name, tc := range map[string]struct {
		taken    int
		attempts int
		dryRun   bool
	}{
		"none":              {0, 1, false},
		"one":               {1, 2, false},
		"all but the last":  {7, 8, false},
		"all":               {8, 8, false},
		"all but last, dry": {7, 8, true},
		"all, dry":          {8, 8, true},
	} {
		t.Run(name, func(t *testing.T) {
			store, tried := taking(t, "/registry/endpoints/"+ns+"/", tc.taken)
			obj, opts := newEndpoints(""), createOptions()
			obj.GenerateName = "gen-"
			if tc.dryRun {
				opts = dryRun()
			}
			created, _, err := newStores(t, store).endpoints.Create(t.Context(), ns, obj, opts)
			slices.Sort(*tried)
			if distinct := slices.Compact(slices.Clone(*tried)); len(*tried) != tc.attempts || len(distinct) != tc.attempts {
				t.Errorf("tried %v, want %d names", *tried, tc.attempts)
			}
			if tc.taken < tc.attempts {
				if err != nil {
					t.Fatal(err)
				}
				if got := typed[*corev1.Endpoints](t, created).Name; len(got) != len("gen-")+5 || !strings.HasPrefix(got, "gen-") {
					t.Errorf("generated %q", got)
				}
				return
			}
			status := checkStatus(t, err, 409, "already exists, the server was not able to generate a unique name for the object")
			if status.Reason != metav1.StatusReasonAlreadyExists || status.Details.RetryAfterSeconds != 1 {
				t.Errorf("reason %s, details %v", status.Reason, status.Details)
			}
		})
	}
}

// Whoever sends back an object whose name was generated once means that name.
func TestGivenNameIsNeverReplaced(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj := newEndpoints("")
	obj.GenerateName = "gen-"
	first := s.create(t, ns, obj)
	again := newEndpoints(first.Name)
	again.GenerateName = first.GenerateName
	created, _, err := s.endpoints.Create(t.Context(), ns, again, createOptions())
	if err == nil {
		t.Fatalf("created %s beside %s", typed[*corev1.Endpoints](t, created).Name, first.Name)
	}
	checkStatus(t, err, 409, `"`+first.Name+`" already exists`)
}

func TestGeneratedNameIsCut(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	base := strings.Repeat("x", 100)
	obj := newEndpoints("")
	obj.GenerateName = base
	created := s.create(t, ns, obj)
	if got := created.Name; len(got) != 63 || !strings.HasPrefix(got, base[:58]) || created.GenerateName != base {
		t.Errorf("generated %q for %q", got, created.GenerateName)
	}
}

// The storage says that it does not know what became of the write.
func TestCreateOfUnknownOutcome(t *testing.T) {
	plain := newStores(t, shared.store)
	ns := plain.newNamespace(t)
	key := plain.endpoints.Key(ns, "a")
	for name, tc := range map[string]struct {
		before, after func(value []byte) // the write; nil: it is not written
		readFails     bool
		code          int32 // 0: created
	}{
		"written":                     {after: func(value []byte) { put(t, key, value) }},
		"written and then changed":    {after: func(value []byte) { put(t, key, value); put(t, key, value) }},
		"not written":                 {code: 504},
		"another's came first":        {before: func([]byte) { put(t, key, []byte(canonicalHead+`"name":"a","namespace":"`+ns+`","uid":"another"}}`)) }, code: 409},
		"written, but not read again": {after: func(value []byte) { put(t, key, value) }, readFails: true, code: 504},
		"another's is unreadable":     {before: func([]byte) { put(t, key, []byte(`{`)) }, code: 409},
	} {
		t.Run(name, func(t *testing.T) {
			f, puts, failing := &faulty{Interface: shared.store}, 0, false
			f.put = func(ctx context.Context, k string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
				if k != key {
					return shared.store.Put(ctx, k, value, opts)
				}
				puts++
				for _, write := range []func([]byte){tc.before, tc.after} {
					if write != nil {
						write(value)
					}
				}
				failing = tc.readFails
				return storage.WriteResponse{}, storage.ErrUnknownOutcome
			}
			f.get = func(ctx context.Context, k string, opts storage.GetOptions) (storage.GetResponse, error) {
				if failing && k == key {
					return storage.GetResponse{}, storage.ErrUnavailable
				}
				return shared.store.Get(ctx, k, opts)
			}
			created, _, err := newStores(t, f).endpoints.Create(t.Context(), ns, newEndpoints("a"), createOptions())
			if kv := stored(t, key); kv != nil {
				defer remove(t, key)
			}
			if puts != 1 {
				t.Errorf("written %d times, want once", puts)
			}
			if tc.code != 0 {
				status := checkStatus(t, err, tc.code, "")
				if tc.code == 504 && status.Details.RetryAfterSeconds != 0 {
					t.Errorf("details %v: clients would create it again", status.Details)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, kv := typed[*corev1.Endpoints](t, created), stored(t, key)
			if !strings.Contains(string(kv.Value), string(got.UID)) || got.ResourceVersion != formatRevision(kv.CreateRevision) {
				t.Errorf("got %s at %s, stored at %d: %s", got.UID, got.ResourceVersion, kv.CreateRevision, kv.Value)
			}
		})
	}
}

// A name that could not be generated is not an ambiguity, and an error that is nobody's
// fault but the server's stays what it is.
func TestCreatePassesOnUnknownErrors(t *testing.T) {
	ns := newStores(t, shared.store).newNamespace(t)
	broken, tries := errors.New("broken"), 0
	f := &faulty{Interface: shared.store}
	f.put = func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
		tries++
		return storage.WriteResponse{}, broken
	}
	obj := newEndpoints("")
	obj.GenerateName = "gen-"
	if _, _, err := newStores(t, f).endpoints.Create(t.Context(), ns, obj, createOptions()); !errors.Is(err, broken) || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}
