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
	"sigs.k8s.io/structured-merge-diff/v6/typed"
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

// AtomicField is a top-level list that one manager owns as a whole.
type AtomicField struct {
	Name string
	// IsSet says whether the field is there in the object's JSON.
	IsSet func(obj runtime.Object) bool
	// Equal compares the field of two objects that both have it.
	Equal func(a, b runtime.Object) bool
	// Copy gives to the field of from. The two may share what Strategy leaves alone.
	Copy func(to, from runtime.Object)
}

// maxUpdateManagers is how many managers of updates apimachinery keeps apart.
const maxUpdateManagers = 10

// ownership keeps metadata.managedFields of a resource's objects. What it does is what
// apimachinery's FieldManager does, and is done by it unless the resource consists of
// metadata and atomic fields: then ownership takes a few comparisons, whatever the size of
// the object, and no schema. Tests hold both to the same results.
type ownership struct {
	*managedfields.FieldManager
	resource   *Resource // without Atomic, the FieldManager does everything
	atomic     []string  // its fields
	apiVersion string
}

func newOwnership(r *Resource, scheme *runtime.Scheme, converter managedfields.TypeConverter) (*ownership, error) {
	gvk := r.GroupVersionKind()
	manager, err := managedfields.NewDefaultFieldManager(converter, scheme, scheme, scheme, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		return nil, fmt.Errorf("field ownership: %w", err)
	}
	o := &ownership{FieldManager: manager, resource: r, apiVersion: gvk.GroupVersion().String()}
	for _, atomic := range r.Atomic {
		o.atomic = append(o.atomic, topField(atomic.Name))
	}
	return o, nil
}

// objectMeta returns the metadata of a typed object, nil for one that has none.
func objectMeta(obj runtime.Object) *metav1.ObjectMeta {
	accessor, ok := obj.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil
	}
	meta, _ := accessor.GetObjectMeta().(*metav1.ObjectMeta)
	return meta
}

// update gives the fields that differ between live and next to the manager, and returns
// next so. live is an empty object where next is new.
func (o *ownership) update(live, next runtime.Object, manager string) runtime.Object {
	old, meta := objectMeta(live), objectMeta(next)
	if !o.simpleUpdate(old, meta) {
		return o.byLibrary(live, next, manager)
	}
	entries := old.ManagedFields
	if len(entries) == 0 && old.UID != "" {
		meta.ManagedFields = nil // nobody has tracked this object, and only apply begins to
		return next
	}
	d, ok := o.compare(live, next)
	if !ok {
		return o.byLibrary(live, next, manager)
	}
	owned, ok := o.transfer(entries, d, cmp.Or(manager, unknownManager))
	if !ok {
		return o.byLibrary(live, next, manager)
	}
	meta.ManagedFields = owned
	return next
}

// unknownManager is what apimachinery calls a manager without a name.
const unknownManager = "unknown"

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

// simple says whether an object and its managers are of the kind that ownership deals with
// itself.
func (o *ownership) simple(meta *metav1.ObjectMeta) bool {
	if o.resource.Atomic == nil || meta == nil || meta.DeletionTimestamp != nil || meta.DeletionGracePeriodSeconds != nil {
		return false
	}
	for i := range meta.ManagedFields {
		entry := &meta.ManagedFields[i]
		if entry.APIVersion != o.apiVersion || entry.Subresource != "" || entry.FieldsType != "FieldsV1" || entry.FieldsV1 == nil {
			return false
		}
	}
	return true
}

// simpleUpdate says the same of an update: nobody meddles with managedFields, and the
// managers do not become too many.
func (o *ownership) simpleUpdate(old, next *metav1.ObjectMeta) bool {
	if !o.simple(old) || next == nil || next.DeletionTimestamp != nil || next.DeletionGracePeriodSeconds != nil ||
		next.ManagedFields != nil && !slices.EqualFunc(next.ManagedFields, old.ManagedFields, equalEntries) {
		return false
	}
	updates := 0
	for i := range old.ManagedFields {
		if old.ManagedFields[i].Operation == metav1.ManagedFieldsOperationUpdate {
			updates++
		}
	}
	return updates < maxUpdateManagers
}

// transfer takes what was touched or removed from everybody, gives what was touched to
// the manager, and drops who is left with nothing.
func (o *ownership) transfer(entries []metav1.ManagedFieldsEntry, d difference, manager string) ([]metav1.ManagedFieldsEntry, bool) {
	if d.empty() {
		return entries, true
	}
	lost := d.touched.with(d.removed)
	owned := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	own := metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: o.apiVersion,
		FieldsType: "FieldsV1", Time: now(),
	}
	for _, entry := range entries {
		set, ok := o.fields(&entry)
		switch {
		case !ok:
			return nil, false
		case entry.Manager == manager && entry.Operation == own.Operation && len(d.touched) > 0:
			if own.FieldsV1 = entry.FieldsV1; !d.onlyTouches(set) {
				own.FieldsV1 = set.without(lost).with(d.touched).fieldsV1()
			}
			continue
		case set.meets(lost):
			if set = set.without(lost); len(set) == 0 {
				continue
			}
			entry.FieldsV1 = set.fieldsV1()
		}
		owned = append(owned, entry)
	}
	if len(d.touched) > 0 {
		if own.FieldsV1 == nil {
			own.FieldsV1 = d.touched.fieldsV1()
		}
		owned = append(owned, own)
	}
	if len(owned) == 0 {
		return nil, true
	}
	slices.SortStableFunc(owned, compareEntries)
	return owned, true
}

// fields returns what an entry owns. ok is false where a field is one that nobody should
// own, as a name, or that is not known.
func (o *ownership) fields(entry *metav1.ManagedFieldsEntry) (set fieldSet, ok bool) {
	unknown := func(field string) bool {
		return field != generateNameField && !slices.Contains(o.atomic, field) &&
			!slices.ContainsFunc(collections, func(collection string) bool { return strings.HasPrefix(field, collection) })
	}
	set, ok = parseFieldSet(entry.FieldsV1.GetRawBytes())
	return set, ok && !slices.ContainsFunc(set, unknown)
}

// now is the time of a change, as apimachinery's entries have it.
func now() *metav1.Time { return &metav1.Time{Time: time.Now().UTC()} }

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

func equalEntries(x, y metav1.ManagedFieldsEntry) bool {
	return x.Time.Equal(y.Time) && sameOwner(x, y)
}

// dropDuplicateOwners removes repeated owner references, as kube-apiserver does since
// 1.20, and returns the warning that it gives for that.
func dropDuplicateOwners(accessor metav1.Object) []string {
	owners := accessor.GetOwnerReferences()
	if len(owners) < 2 {
		return nil
	}
	seen := make(map[comparableOwner]bool, len(owners))
	var kept []metav1.OwnerReference
	var duplicates []string
	for _, owner := range owners {
		key := comparableOwner{owner, pointee(owner.Controller), pointee(owner.BlockOwnerDeletion)}
		key.Controller, key.BlockOwnerDeletion = nil, nil
		if seen[key] {
			duplicates = append(duplicates, string(owner.UID))
			continue
		}
		seen[key] = true
		kept = append(kept, owner)
	}
	if len(duplicates) == 0 {
		return nil
	}
	accessor.SetOwnerReferences(kept)
	return []string{".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: " + strings.Join(duplicates, ", ")}
}

// comparableOwner is an owner reference with what its pointers point to.
type comparableOwner struct {
	metav1.OwnerReference
	controller, blocks optional
}

type optional struct{ given, value bool }

func pointee(value *bool) optional {
	if value == nil {
		return optional{}
	}
	return optional{true, *value}
}
