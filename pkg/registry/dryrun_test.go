package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// storeRevision is the revision of the whole store.
func storeRevision(t *testing.T) int64 {
	t.Helper()
	got, err := shared.store.Get(t.Context(), "/", storage.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Revision
}

// A dry run meets whatever the real request would, and writes nothing.
func TestDryRun(t *testing.T) {
	const limit = 16 << 10
	small, err := etcd.New(shared.db.Client(), etcd.Config{MaxValueBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	s := newStores(t, small)
	ns := s.newNamespace(t)
	s.create(t, ns, newEndpoints("taken"))
	putNamespace(t, s, dyingNamespace(ns+"-dying"))
	large := newEndpoints("large")
	large.Annotations = map[string]string{"a": strings.Repeat("x", limit)}
	before := storeRevision(t)
	for name, tc := range map[string]struct {
		namespace string
		obj       *corev1.Endpoints
		code      int32
		message   string
	}{
		"free name":            {ns, newEndpoints("free"), 0, ""},
		"taken name":           {ns, newEndpoints("taken"), 409, `endpoints "taken" already exists`},
		"invalid":              {ns, newEndpoints("A"), 422, "metadata.name"},
		"too large":            {ns, large, 413, fmt.Sprintf("the limit is %d", limit-4<<10)},
		"missing namespace":    {"missing", newEndpoints("free"), 404, `namespaces "missing" not found`},
		"namespace on its way": {ns + "-dying", newEndpoints("free"), 403, "is being terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			obj, _, err := s.endpoints.Create(t.Context(), tc.namespace, tc.obj.DeepCopy(), dryRun())
			if tc.code != 0 {
				checkStatus(t, err, tc.code, tc.message)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := typed[*corev1.Endpoints](t, obj); got.ResourceVersion != "" || got.UID == "" || got.CreationTimestamp.IsZero() || len(got.ManagedFields) != 1 {
				t.Errorf("got %v, want all but a resourceVersion", got.ObjectMeta)
			}
		})
	}
	dry := &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	if _, _, err := s.endpoints.Delete(t.Context(), ns, "taken", dry); err != nil {
		t.Error(err)
	}
	if _, _, err := s.namespaces.Delete(t.Context(), "", ns, dry); err != nil {
		t.Error(err)
	}
	_, _, err = s.endpoints.Delete(t.Context(), ns, "free", dry)
	checkStatus(t, err, 404, `endpoints "free" not found`)
	if after := storeRevision(t); after != before {
		t.Errorf("the store went from revision %d to %d", before, after)
	}
	_, _, err = s.endpoints.Create(t.Context(), ns, large, createOptions())
	checkStatus(t, err, 413, fmt.Sprintf("the limit is %d", limit-4<<10))
}

// A dry run of unknown outcome has written nothing either.
func TestDryRunOfUnknownOutcome(t *testing.T) {
	ns := newStores(t, shared.store).newNamespace(t)
	f := &faulty{Interface: shared.store}
	f.put = func(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
		return storage.WriteResponse{}, storage.ErrUnknownOutcome
	}
	_, _, err := newStores(t, f).endpoints.Create(t.Context(), ns, newEndpoints("a"), dryRun())
	checkStatus(t, err, 504, "")
}
