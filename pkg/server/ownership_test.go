package server

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/namespaces"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// lenient is a Strategy that has nothing to say.
type lenient struct{}

func (lenient) Default(runtime.Object)                                      {}
func (lenient) PrepareForCreate(runtime.Object)                             {}
func (lenient) PrepareForUpdate(_, _ runtime.Object)                        {}
func (lenient) Validate(runtime.Object) field.ErrorList                     { return nil }
func (lenient) ValidateUpdate(_, _ runtime.Object) (faults field.ErrorList) { return nil }
func (lenient) Warnings(runtime.Object) []string                            { return nil }

// leases is a resource outside the core group.
func leases() *registry.Resource {
	return &registry.Resource{
		API:      metav1.APIResource{Group: coordinationv1.GroupName, Version: "v1", Kind: "Lease", Name: "leases", SingularName: "lease", Namespaced: true},
		New:      func() runtime.Object { return &coordinationv1.Lease{} },
		NewList:  func() runtime.Object { return &coordinationv1.LeaseList{} },
		Strategy: lenient{},
		Cells:    func(runtime.Object) []any { return nil },
	}
}

// withLeases are the documents that a server has which serves leases, too. That of their
// group is what tools/openapi makes of it.
func withLeases(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range openAPINames(openAPIFiles, "openapi/v3") {
		data, err := openAPIFiles.ReadFile("openapi/v3/" + name + ".json.gz")
		if err != nil {
			t.Fatal(err)
		}
		files["openapi/v3/"+name+".json.gz"] = &fstest.MapFile{Data: data}
	}
	data, err := os.ReadFile("testdata/coordination.k8s.io-v1.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	files["openapi/v3/apis/coordination.k8s.io/v1.json.gz"] = &fstest.MapFile{Data: data}
	return files
}

// storeOf runs a registry of namespaces and one more resource, with ownership by the
// documents.
func storeOf(t *testing.T, resource *registry.Resource, files fstest.MapFS) *registry.Store {
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
	storage, err := etcd.New(db.Client(), etcd.Config{MaxValueBytes: embedded.MaxValueBytes})
	if err != nil {
		t.Fatal(err)
	}
	scheme := testScheme(t)
	if err := coordinationv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	r, err := registry.New(registry.Config{
		Storage: storage, Scheme: scheme, Resources: []*registry.Resource{namespaces.Resource(), resource},
		TypeConverter: registry.NewTypeConverter(func() (map[string]*spec.Schema, error) { return schemasIn(files) }),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	if err := namespaces.EnsureAlways(t.Context(), r.Stores()[0]); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.Stores()[1]
}

// A resource outside the core group owns its fields as one within it does.
func TestOwnershipOutsideTheCoreGroup(t *testing.T) {
	store := storeOf(t, leases(), withLeases(t))
	holder := "me"
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	created, _, err := store.Create(t.Context(), "default", lease, &metav1.CreateOptions{FieldManager: "creator"})
	if err != nil {
		t.Fatal(err)
	}
	checkOwners(t, created, map[string]string{"creator": `"f:spec":{"f:holderIdentity":{}}`})
	patch := []byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"leaseDurationSeconds":9}}`)
	applied, _, _, err := store.Patch(t.Context(), "default", "a", types.ApplyYAMLPatchType, patch, &metav1.PatchOptions{FieldManager: "applier"})
	if err != nil {
		t.Fatal(err)
	}
	checkOwners(t, applied, map[string]string{
		"creator": `"f:spec":{"f:holderIdentity":{}}`, "applier": `"f:spec":{"f:leaseDurationSeconds":{}}`,
	})
}

// checkOwners checks what each manager of a lease owns of it.
func checkOwners(t *testing.T, obj runtime.Object, want map[string]string) {
	t.Helper()
	if cached, ok := obj.(runtime.CacheableObject); ok {
		obj = cached.GetObject()
	}
	entries := obj.(*coordinationv1.Lease).ManagedFields
	for _, entry := range entries {
		fields := entry.FieldsV1.GetRawString()
		if owned, ok := want[entry.Manager]; !ok || !strings.Contains(fields, owned) {
			t.Errorf("%s owns %s, want %s", entry.Manager, fields, owned)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d managers, want %d", len(entries), len(want))
	}
}

// A type that several groups have is of the kinds of all of them.
func TestSchemasOfSeveralGroups(t *testing.T) {
	schemas, err := schemasIn(withLeases(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"io.k8s.api.core.v1.Endpoints":                       {""},
		"io.k8s.api.coordination.v1.Lease":                   {"coordination.k8s.io"},
		"io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions": {"", "coordination.k8s.io"},
	} {
		var got []string
		if schemas[name] == nil {
			t.Fatalf("there is no schema %s", name)
		}
		kinds, _ := schemas[name].Extensions["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			group, _ := kind.(map[string]any)["group"].(string)
			got = append(got, group)
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s is of the groups %q, want %q", name, got, want)
		}
	}
}
