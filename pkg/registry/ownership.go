package registry

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// NewTypeConverter returns the schema by which field ownership is tracked, out of the
// OpenAPI v3 schemas of the resources, by name. They are asked for when the schema is first
// needed, which in a server whose clients never do anything unusual is never. It panics
// where there is an error.
func NewTypeConverter(schemas func() (map[string]*spec.Schema, error)) managedfields.TypeConverter {
	return lazyConverter{sync.OnceValue(func() managedfields.TypeConverter {
		named, err := schemas()
		if err != nil {
			panic(err)
		}
		converter, err := managedfields.NewTypeConverter(named, false)
		if err != nil {
			panic(err)
		}
		return converter
	})}
}

type lazyConverter struct {
	build func() managedfields.TypeConverter
}

func (l lazyConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	return l.build().ObjectToTyped(obj, opts...)
}

func (l lazyConverter) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	return l.build().TypedToObject(value)
}

// AtomicField is a top-level field that one manager owns as a whole.
type AtomicField struct {
	Name string
	// IsSet says whether the field is there in the object's JSON.
	IsSet func(obj runtime.Object) bool
	// Equal compares the field of two objects that both have it.
	Equal func(a, b runtime.Object) bool
}

// maxUpdateManagers is how many managers of updates apimachinery keeps apart.
const maxUpdateManagers = 10

// ownership keeps metadata.managedFields of a resource's objects. What it does is what
// apimachinery's FieldManager does, and is done by it unless the resource consists of
// metadata and atomic fields: then ownership of an update takes a few comparisons, whatever
// the size of the object. A test holds both to the same results.
type ownership struct {
	*managedfields.FieldManager
	atomic     []AtomicField // nil: the FieldManager does everything
	apiVersion string
}

func newOwnership(r *Resource, scheme *runtime.Scheme, converter managedfields.TypeConverter) (*ownership, error) {
	gvk := r.GroupVersionKind()
	manager, err := managedfields.NewDefaultFieldManager(converter, scheme, scheme, scheme, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		return nil, fmt.Errorf("field ownership: %w", err)
	}
	return &ownership{FieldManager: manager, atomic: r.Atomic, apiVersion: gvk.GroupVersion().String()}, nil
}

// update gives the fields that differ between live and next to the manager, and returns
// next so. live is an empty object where next is new.
func (o *ownership) update(live, next runtime.Object, manager string) runtime.Object {
	old, err := meta.Accessor(live)
	if err != nil {
		return next
	}
	accessor, err := meta.Accessor(next)
	if err != nil {
		return next
	}
	if !o.simple(old, accessor) {
		return o.byLibrary(live, next, manager)
	}
	entries := old.GetManagedFields()
	if len(entries) == 0 && old.GetUID() != "" {
		accessor.SetManagedFields(nil) // nobody has tracked this object, and only apply begins to
		return next
	}
	touched, removed, ok := o.compare(live, next, old, accessor)
	if !ok {
		return o.byLibrary(live, next, manager)
	}
	owned, err := o.transfer(entries, touched, removed, cmp.Or(manager, "unknown"))
	if err != nil {
		return o.byLibrary(live, next, manager)
	}
	accessor.SetManagedFields(owned)
	return next
}

func (o *ownership) byLibrary(live, next runtime.Object, manager string) runtime.Object {
	next = o.UpdateNoErrors(live, next, manager)
	keepTimes(live, next)
	return next
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

// simple says whether the update is of the kind that update does itself: nobody meddles
// with managedFields, and nothing is being deleted.
func (o *ownership) simple(old, next metav1.Object) bool {
	if o.atomic == nil || old.GetDeletionTimestamp() != nil || next.GetDeletionTimestamp() != nil ||
		old.GetDeletionGracePeriodSeconds() != nil || next.GetDeletionGracePeriodSeconds() != nil {
		return false
	}
	given := next.GetManagedFields()
	if given != nil && !equality.Semantic.DeepEqual(given, old.GetManagedFields()) {
		return false
	}
	updates := 0
	for _, entry := range old.GetManagedFields() {
		if entry.APIVersion != o.apiVersion || entry.Subresource != "" || entry.FieldsType != "FieldsV1" || entry.FieldsV1 == nil {
			return false
		}
		if entry.Operation == metav1.ManagedFieldsOperationUpdate {
			updates++
		}
	}
	return updates < maxUpdateManagers
}

// transfer takes what was touched or removed from everybody, gives what was touched to
// the manager, and drops who is left with nothing.
func (o *ownership) transfer(entries []metav1.ManagedFieldsEntry, touched, removed *fieldpath.Set, manager string) ([]metav1.ManagedFieldsEntry, error) {
	if touched.Empty() && removed.Empty() {
		return entries, nil
	}
	lost := touched.Union(removed)
	var owned []metav1.ManagedFieldsEntry
	own := metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: o.apiVersion,
		FieldsType: "FieldsV1", Time: &metav1.Time{Time: time.Now().UTC()},
	}
	gained := touched
	for _, entry := range entries {
		set := &fieldpath.Set{}
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			return nil, err
		}
		set = set.Difference(lost)
		if entry.Manager == manager && entry.Operation == own.Operation && !touched.Empty() {
			gained = set.Union(touched)
			continue
		}
		if set.Empty() {
			continue
		}
		if err := setFields(&entry, set); err != nil {
			return nil, err
		}
		owned = append(owned, entry)
	}
	if !touched.Empty() {
		if err := setFields(&own, gained); err != nil {
			return nil, err
		}
		owned = append(owned, own)
	}
	slices.SortStableFunc(owned, compareEntries)
	return owned, nil
}

func setFields(entry *metav1.ManagedFieldsEntry, set *fieldpath.Set) error {
	data, err := set.ToJSON()
	if err != nil {
		return err
	}
	entry.FieldsV1 = metav1.NewFieldsV1(string(data))
	return nil
}

// compareEntries is apimachinery's order of managedFields.
func compareEntries(a, b metav1.ManagedFieldsEntry) int {
	seconds := func(t *metav1.Time) int64 {
		if t == nil {
			return 0
		}
		return t.Unix()
	}
	return cmp.Or(
		strings.Compare(string(a.Operation), string(b.Operation)),
		cmp.Compare(seconds(a.Time), seconds(b.Time)),
		strings.Compare(a.Manager, b.Manager),
		strings.Compare(a.APIVersion, b.APIVersion),
	)
}

// compare finds the fields of next that live does not have so, and those that only live
// has. ok is false where a list that must be a set is none.
func (o *ownership) compare(live, next runtime.Object, old, accessor metav1.Object) (touched, removed *fieldpath.Set, ok bool) {
	d := difference{&fieldpath.Set{}, &fieldpath.Set{}}
	d.maps("labels", old.GetLabels(), accessor.GetLabels())
	d.maps("annotations", old.GetAnnotations(), accessor.GetAnnotations())
	if was, is := old.GetGenerateName(), accessor.GetGenerateName(); was != is {
		d.field(is != "", named("metadata"), named("generateName"))
	}
	if !d.finalizers(old.GetFinalizers(), accessor.GetFinalizers()) || !d.owners(old.GetOwnerReferences(), accessor.GetOwnerReferences()) {
		return nil, nil, false
	}
	for _, atomic := range o.atomic {
		was, is := atomic.IsSet(live), atomic.IsSet(next)
		if was != is || was && !atomic.Equal(live, next) {
			d.field(is, named(atomic.Name))
		}
	}
	return d.touched, d.removed, true
}

// difference collects the paths of fields.
type difference struct{ touched, removed *fieldpath.Set }

func named(name string) fieldpath.PathElement { return fieldpath.PathElement{FieldName: &name} }

// field notes a field that differs: it is there, or it is not there any more.
func (d *difference) field(isThere bool, path ...fieldpath.PathElement) {
	if isThere {
		d.touched.Insert(path)
	} else {
		d.removed.Insert(path)
	}
}

// collection notes that a map or list has come or gone; its elements are noted besides.
func (d *difference) collection(name string, was, is int) {
	if (was == 0) != (is == 0) {
		d.field(is > 0, named("metadata"), named(name))
	}
}

func (d *difference) maps(name string, was, is map[string]string) {
	d.collection(name, len(was), len(is))
	for key, text := range is {
		if before, ok := was[key]; !ok || before != text {
			d.field(true, named("metadata"), named(name), named(key))
		}
	}
	for key := range was {
		if _, ok := is[key]; !ok {
			d.field(false, named("metadata"), named(name), named(key))
		}
	}
}

// finalizers are a set: false where one is there twice.
func (d *difference) finalizers(was, is []string) bool {
	d.collection("finalizers", len(was), len(is))
	note := func(isThere bool, finalizers, others []string) bool {
		for i, finalizer := range finalizers {
			if slices.Contains(finalizers[:i], finalizer) {
				return false
			}
			if !slices.Contains(others, finalizer) {
				element := value.NewValueInterface(finalizer)
				d.field(isThere, named("metadata"), named("finalizers"), fieldpath.PathElement{Value: &element})
			}
		}
		return true
	}
	return note(true, is, was) && note(false, was, is)
}

// owners are keyed by their uid: false where one is there twice.
func (d *difference) owners(was, is []metav1.OwnerReference) bool {
	d.collection("ownerReferences", len(was), len(is))
	find := func(owners []metav1.OwnerReference, owner *metav1.OwnerReference) int {
		return slices.IndexFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == owner.UID })
	}
	note := func(isThere bool, owners, others []metav1.OwnerReference) bool {
		for i := range owners {
			if find(owners[:i], &owners[i]) >= 0 {
				return false
			}
			at := find(others, &owners[i])
			if at < 0 || isThere && !equality.Semantic.DeepEqual(owners[i], others[at]) {
				key := &value.FieldList{{Name: "uid", Value: value.NewValueInterface(string(owners[i].UID))}}
				d.field(isThere, named("metadata"), named("ownerReferences"), fieldpath.PathElement{Key: key})
			}
		}
		return true
	}
	return note(true, is, was) && note(false, was, is)
}

// sameOwners compares managedFields without their times.
func sameOwners(a, b []metav1.ManagedFieldsEntry) bool {
	return slices.EqualFunc(a, b, func(x, y metav1.ManagedFieldsEntry) bool {
		return x.Manager == y.Manager && x.Operation == y.Operation && x.APIVersion == y.APIVersion &&
			x.FieldsType == y.FieldsType && x.Subresource == y.Subresource &&
			(x.FieldsV1 == nil) == (y.FieldsV1 == nil) &&
			(x.FieldsV1 == nil || bytes.Equal(x.FieldsV1.GetRawBytes(), y.FieldsV1.GetRawBytes()))
	})
}

// dropDuplicateOwners removes repeated owner references, as kube-apiserver does since
// 1.20, and returns the warning that it gives for that.
func dropDuplicateOwners(accessor metav1.Object) []string {
	owners := accessor.GetOwnerReferences()
	var kept []metav1.OwnerReference
	var duplicates []string
	for _, owner := range owners {
		if containsOwner(kept, owner) {
			duplicates = append(duplicates, string(owner.UID))
			continue
		}
		kept = append(kept, owner)
	}
	if len(duplicates) == 0 {
		return nil
	}
	accessor.SetOwnerReferences(kept)
	return []string{".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: " + strings.Join(duplicates, ", ")}
}

func containsOwner(owners []metav1.OwnerReference, owner metav1.OwnerReference) bool {
	for i := range owners {
		if owners[i].UID == owner.UID && equality.Semantic.DeepEqual(owners[i], owner) {
			return true
		}
	}
	return false
}
