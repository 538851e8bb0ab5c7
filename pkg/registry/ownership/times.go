package ownership

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// setManagedFields gives to the managedFields of from. An object without metadata, which a
// kind of the API does not have, stays as it is.
func setManagedFields(to, from runtime.Object) {
	source, err := meta.Accessor(from)
	if err != nil {
		return
	}
	if target, err := meta.Accessor(to); err == nil {
		target.SetManagedFields(source.GetManagedFields())
	}
}

// keepTimes undoes the one change that the library makes where nothing has changed: the
// times in managedFields.
func keepTimes(live, next runtime.Object) {
	old, err := meta.Accessor(live)
	if err != nil {
		return
	}
	accessor, err := meta.Accessor(next)
	if err != nil || !sameOwners(old.GetManagedFields(), accessor.GetManagedFields()) {
		return
	}
	fields := accessor.GetManagedFields()
	accessor.SetManagedFields(old.GetManagedFields())
	next.GetObjectKind().SetGroupVersionKind(live.GetObjectKind().GroupVersionKind())
	if !equality.Semantic.DeepEqual(live, next) {
		accessor.SetManagedFields(fields)
	}
}

// sameOwners compares managedFields without their times, and so without their order.
func sameOwners(a, b []metav1.ManagedFieldsEntry) bool {
	byManager := func(entries []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
		return slices.SortedStableFunc(slices.Values(entries), func(x, y metav1.ManagedFieldsEntry) int {
			return cmp.Or(strings.Compare(string(x.Operation), string(y.Operation)), strings.Compare(x.Manager, y.Manager))
		})
	}
	return len(a) == len(b) && slices.EqualFunc(byManager(a), byManager(b), sameOwner)
}

func sameOwner(x, y metav1.ManagedFieldsEntry) bool {
	return x.Manager == y.Manager && x.Operation == y.Operation && x.APIVersion == y.APIVersion &&
		x.FieldsType == y.FieldsType && x.Subresource == y.Subresource &&
		(x.FieldsV1 == nil) == (y.FieldsV1 == nil) &&
		(x.FieldsV1 == nil || bytes.Equal(x.FieldsV1.GetRawBytes(), y.FieldsV1.GetRawBytes()))
}
