package registry

import (
	"bytes"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// PatchJSON patches finished JSON as Patch does, without reading or writing the store;
// nil stands for no object. It returns the object as it would be validated.
func (s *Store) PatchJSON(finished []byte, name string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (runtime.Object, []string, error) {
	change, err := s.patch("default", name, patchType, patch, opts)
	if err != nil {
		return nil, nil, err
	}
	if finished == nil {
		return change(nil, nil)
	}
	stored := &object{resource: s.Resource, json: finished}
	current, err := stored.decode()
	if err != nil {
		return nil, nil, err
	}
	before, err := s.encode(current)
	if err != nil {
		return nil, nil, err
	}
	next, warnings, err := change(stored, current)
	if after, encodeErr := s.encode(current); encodeErr != nil || !bytes.Equal(before, after) {
		return nil, nil, fmt.Errorf("a patch changed what it is of: %s became %s, %w", before, after, encodeErr)
	}
	return next, warnings, err
}

// UpdateJSON is an update of finished JSON by the manager with the object that data is, as
// far as ownership goes; what is no object counts as an empty one.
func (s *Store) UpdateJSON(finished, data []byte, manager string) runtime.Object {
	current, err := s.decodeJSON(finished)
	if err != nil {
		panic(err)
	}
	next, _, err := s.decodeStrict(data)
	if err != nil {
		next = s.New()
	}
	if err := carryOver(next, current); err != nil {
		next.(metav1.ObjectMetaAccessor).GetObjectMeta().SetResourceVersion("")
	}
	return s.owners.update(current, next, manager)
}

// Change returns a function that patches finished JSON, decoded before, as PatchJSON does.
func (s *Store) Change(t testing.TB, finished []byte, name string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) func() {
	t.Helper()
	change, err := s.patch("default", name, patchType, patch, opts)
	if err != nil {
		t.Fatal(err)
	}
	var stored *object
	var current runtime.Object
	if finished != nil {
		stored = &object{resource: s.Resource, json: finished}
		if current, err = stored.decode(); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if _, _, err := change(stored, current); err != nil {
			t.Fatal(err)
		}
	}
}

// Owned gives a new object's fields to the manager.
func (s *Store) Owned(obj runtime.Object, manager string) runtime.Object {
	return s.owners.update(s.New(), obj, manager)
}

// OwnedBy gives what differs between live and next to the manager.
func (s *Store) OwnedBy(live, next runtime.Object, manager string) runtime.Object {
	return s.owners.update(live, next, manager)
}

// ScanPlain is scanPlain.
var ScanPlain = scanPlain

// MergeList is mergeList.
func MergeList[T any](live, given []T, same func(x, y T) bool) ([]T, bool) {
	return mergeList(live, given, same)
}
