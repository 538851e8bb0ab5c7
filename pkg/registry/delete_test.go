package registry_test

import (
	"bytes"
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/storage"
)

func TestDelete(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj := s.create(t, ns, newEndpoints("a"))
	_, status, err := s.endpoints.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := status.Details; status.Status != metav1.StatusSuccess || d.Name != "a" || d.Kind != "endpoints" || d.UID != obj.UID {
		t.Errorf("got %v", status)
	}
	if stored(t, s.endpoints.Key(ns, "a")) != nil {
		t.Error("it is still there")
	}
	_, _, err = s.endpoints.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{})
	checkStatus(t, err, 404, `endpoints "a" not found`)
	_, _, err = s.namespaces.Delete(t.Context(), "", "missing", &metav1.DeleteOptions{})
	checkStatus(t, err, 404, `namespaces "missing" not found`)
}

func TestDeletePreconditions(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj := s.create(t, ns, newEndpoints("a"))
	uid, version := obj.UID, obj.ResourceVersion
	otherUID, otherVersion := types.UID("abc"), "1"
	for name, tc := range map[string]struct {
		preconditions metav1.Preconditions
		message       string
	}{
		"uid":              {metav1.Preconditions{UID: &otherUID}, `Operation cannot be fulfilled on Endpoints "a": the UID in the precondition (abc) does not match the UID in record (` + string(uid) + `). The object might have been deleted and then recreated`},
		"version":          {metav1.Preconditions{ResourceVersion: &otherVersion}, `Operation cannot be fulfilled on Endpoints "a": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (` + version + `). The object might have been modified`},
		"uid, not version": {metav1.Preconditions{UID: &uid, ResourceVersion: &otherVersion}, "the ResourceVersion in the precondition"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dryRun := range [][]string{nil, {metav1.DryRunAll}} {
				_, _, err := s.endpoints.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{Preconditions: &tc.preconditions, DryRun: dryRun})
				checkStatus(t, err, 409, tc.message)
			}
		})
	}
	if stored(t, s.endpoints.Key(ns, "a")) == nil {
		t.Fatal("deleted against a precondition")
	}
	if _, _, err := s.endpoints.Delete(t.Context(), ns, "a", &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}); err != nil {
		t.Error(err)
	}
}

// A namespace is marked by an update, and says so.
func TestDeletePreconditionsOfNamespaces(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj, err := s.namespaces.Get(t.Context(), "", ns, &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := typed[*corev1.Namespace](t, obj)
	otherUID, otherVersion := types.UID("abc"), "1"
	for name, tc := range map[string]struct {
		preconditions metav1.Preconditions
		message       string
	}{
		"uid":     {metav1.Preconditions{UID: &otherUID}, "Precondition failed: UID in precondition: abc, UID in object meta: " + string(namespace.UID)},
		"version": {metav1.Preconditions{UID: &namespace.UID, ResourceVersion: &otherVersion}, "Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: " + namespace.ResourceVersion},
	} {
		_, _, err := s.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{Preconditions: &tc.preconditions})
		t.Run(name, func(t *testing.T) {
			checkStatus(t, err, 409, `Operation cannot be fulfilled on namespaces "`+ns+`": `+tc.message)
		})
	}
	marked, _, err := s.namespaces.Delete(t.Context(), "", ns, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &namespace.UID}})
	if err != nil || typed[*corev1.Namespace](t, marked).DeletionTimestamp == nil {
		t.Errorf("got %v, %v", marked, err)
	}
}

func TestFinalizersHoldAnObject(t *testing.T) {
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	obj := newEndpoints("held")
	obj.Finalizers, obj.Generation = []string{"example.com/hold"}, 3
	created := s.create(t, ns, obj)
	marked, _, err := s.endpoints.Delete(t.Context(), ns, "held", &metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := typed[*corev1.Endpoints](t, marked)
	if got.DeletionTimestamp == nil || got.DeletionGracePeriodSeconds == nil || *got.DeletionGracePeriodSeconds != 0 || got.Generation != 4 {
		t.Errorf("not marked: %v", got.ObjectMeta)
	}
	kv := stored(t, s.endpoints.Key(ns, "held"))
	if got.ResourceVersion == created.ResourceVersion || got.ResourceVersion != revision(kv) || got.UID != created.UID {
		t.Errorf("marked as %s, stored as %s", got.ResourceVersion, revision(kv))
	}
	again, _, err := s.endpoints.Delete(t.Context(), ns, "held", &metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.JSON(), marked.JSON()) {
		t.Errorf("deleted again: %s, want no change", again.JSON())
	}
}

func TestNamespacesThatStay(t *testing.T) {
	s := newStores(t, shared.store)
	putNamespace(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u"}})
	_, _, err := s.namespaces.Delete(t.Context(), "", "default", &metav1.DeleteOptions{})
	checkStatus(t, err, 403, `namespaces "default" is forbidden: this namespace may not be deleted`)
}

// Something happens between the delete's read and its write.
func TestDeleteMeetsAChange(t *testing.T) {
	plain := newStores(t, shared.store)
	ns := plain.newNamespace(t)
	key := plain.endpoints.Key(ns, "a")
	for name, tc := range map[string]struct {
		change func()
		unread bool // the change comes with ErrUnknownOutcome and without a write
		opts   func(obj *corev1.Endpoints) *metav1.DeleteOptions
		code   int32 // 0: deleted
		stays  bool
	}{
		"changed":                       {change: func() { put(t, key, stored(t, key).Value) }},
		"changed, but a version wanted": {change: func() { put(t, key, stored(t, key).Value) }, opts: ofThisVersion, code: 409, stays: true},
		"deleted":                       {change: func() { remove(t, key) }, code: 404},
		"another's":                     {change: func() { putAnother(t, ns, key) }, opts: ofThisUID, code: 409, stays: true},
		"unknown, deleted":              {change: func() { remove(t, key) }, unread: true},
		"unknown, not deleted":          {change: func() {}, unread: true, code: 504, stays: true},
		"unknown, another's":            {change: func() { putAnother(t, ns, key) }, unread: true, stays: true},
		"unknown, changed":              {change: func() { put(t, key, stored(t, key).Value) }, unread: true},
	} {
		t.Run(name, func(t *testing.T) {
			obj := plain.create(t, ns, newEndpoints("a"))
			f, first := &faulty{Interface: shared.store}, true
			f.delete = func(ctx context.Context, k string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
				if k == key && first {
					first = false
					tc.change()
					if tc.unread {
						return storage.WriteResponse{}, storage.ErrUnknownOutcome
					}
				}
				return shared.store.Delete(ctx, k, opts)
			}
			opts := &metav1.DeleteOptions{}
			if tc.opts != nil {
				opts = tc.opts(obj)
			}
			_, _, err := newStores(t, f).endpoints.Delete(t.Context(), ns, "a", opts)
			if tc.code != 0 {
				checkStatus(t, err, tc.code, "")
			} else if err != nil {
				t.Error(err)
			}
			if kv := stored(t, key); kv != nil {
				remove(t, key)
				if !tc.stays {
					t.Errorf("still there: %s", kv.Value)
				}
			} else if tc.stays {
				t.Error("it is gone")
			}
		})
	}
}

func ofThisVersion(obj *corev1.Endpoints) *metav1.DeleteOptions {
	return &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &obj.ResourceVersion}}
}

func ofThisUID(obj *corev1.Endpoints) *metav1.DeleteOptions {
	return &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &obj.UID}}
}

// putAnother has another's object of the same name come in the key's place.
func putAnother(t *testing.T, ns, key string) {
	t.Helper()
	remove(t, key)
	put(t, key, []byte(canonicalHead+`"name":"a","namespace":"`+ns+`","uid":"another"}}`))
}
