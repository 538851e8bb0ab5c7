package registry

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// kubectlManager is the manager under which kubectl applies on the server. For it the library
// keeps the annotation of client-side apply up to date.
const kubectlManager = "kubectl"

// apply is a server-side apply of a configuration that plainly says what it wants; see
// patcher.plain. live is an empty object where there is none yet. The outcome is a new
// object with its defaults, which may share with the others what Strategy leaves alone. ok
// is false for what is left to the FieldManager: all that is unusual, and every conflict.
func (o *ownership) apply(live, config runtime.Object, manager string, force bool) (next runtime.Object, ok bool) {
	manager = cmp.Or(manager, unknownManager)
	if !o.simpleApply(objectMeta(live), objectMeta(config), manager) {
		return nil, false
	}
	given, ok := o.compare(o.resource.New(), config)
	if !ok {
		return nil, false
	}
	a := application{owners: o, live: live, set: given.touched.without(collections)}
	if !a.read(objectMeta(live).ManagedFields, manager) || !a.merge(config) {
		return nil, false
	}
	a.prune()
	d, ok := o.compare(live, a.next)
	if !ok || !a.take(d.touched, force) {
		return nil, false
	}
	a.settle(manager, d)
	return a.next, true
}

// simpleApply says whether the object, its managers and the configuration are of the kind
// that apply deals with itself.
func (o *ownership) simpleApply(old, given *metav1.ObjectMeta, manager string) bool {
	if !o.simple(old) || len(old.ManagedFields) == 0 && old.UID != "" || given.Name == "" {
		return false
	}
	if manager == kubectlManager {
		_, was := old.Annotations[corev1.LastAppliedConfigAnnotation]
		_, is := given.Annotations[corev1.LastAppliedConfigAnnotation]
		if was || is {
			return false
		}
	}
	return !slices.ContainsFunc(given.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "" || owner.Kind == "" || owner.Name == "" // absent, or given as ""
	})
}

// application is one apply on its way.
type application struct {
	owners     *ownership
	live, next runtime.Object
	set        fieldSet // what the configuration names
	own        claim    // the manager's, as of before
	others     []claim
	moved      bool // others have lost fields
}

// claim is an entry of managedFields and its fields.
type claim struct {
	entry metav1.ManagedFieldsEntry
	set   fieldSet
}

// read reads who owns what.
func (a *application) read(entries []metav1.ManagedFieldsEntry, manager string) bool {
	a.others = make([]claim, 0, len(entries))
	for _, entry := range entries {
		set, ok := a.owners.fields(&entry)
		if !ok {
			return false
		}
		if entry.Manager == manager && entry.Operation == metav1.ManagedFieldsOperationApply {
			a.own = claim{entry, set}
		} else {
			a.others = append(a.others, claim{entry, set})
		}
	}
	return true
}

// merge makes next of live and of what the configuration says. It is false for lists that
// are in another order.
func (a *application) merge(config runtime.Object) (ok bool) {
	a.next = a.owners.overlay(a.live, config)
	meta, given := objectMeta(a.next), objectMeta(config)
	if meta.Finalizers, ok = mergeList(meta.Finalizers, given.Finalizers, func(x, y string) bool { return x == y }); !ok {
		return false
	}
	meta.OwnerReferences, ok = mergeList(meta.OwnerReferences, given.OwnerReferences, func(x, y metav1.OwnerReference) bool { return x.UID == y.UID })
	return ok
}

// overlay returns a copy of live with what the configuration says, except for lists in the
// metadata. The two share what Strategy leaves alone.
func (o *ownership) overlay(live, config runtime.Object) runtime.Object {
	next := shallowCopy(live)
	next.GetObjectKind().SetGroupVersionKind(o.resource.GroupVersionKind())
	meta, given := objectMeta(next), objectMeta(config)
	meta.Name = cmp.Or(given.Name, meta.Name)
	meta.GenerateName = cmp.Or(given.GenerateName, meta.GenerateName)
	meta.Namespace = cmp.Or(given.Namespace, meta.Namespace)
	meta.UID = cmp.Or(given.UID, meta.UID)
	meta.ResourceVersion = cmp.Or(given.ResourceVersion, meta.ResourceVersion)
	meta.Labels = overlayMap(meta.Labels, given.Labels)
	meta.Annotations = overlayMap(meta.Annotations, given.Annotations)
	for _, atomic := range o.resource.Atomic {
		if atomic.IsSet(config) {
			atomic.Copy(next, config)
		} else {
			atomic.Copy(next, live)
		}
	}
	return next
}

func overlayMap(live, given map[string]string) map[string]string {
	if len(given) == 0 {
		return live
	}
	next := make(map[string]string, len(live)+len(given))
	maps.Copy(next, live)
	maps.Copy(next, given)
	return next
}

// mergeList merges two lists in which nothing is the same twice. Where both have an
// element, the given one counts. The others keep their places: those of live come first
// where both lists have some between the same elements, as structured-merge-diff has it.
// ok is false where the lists have elements in common in different orders.
func mergeList[T any](live, given []T, same func(x, y T) bool) (merged []T, ok bool) {
	if len(given) == 0 {
		return live, true
	}
	in := func(list []T, x T) bool { return slices.ContainsFunc(list, func(y T) bool { return same(x, y) }) }
	merged = make([]T, 0, len(live)+len(given))
	rest := live
	for _, element := range given {
		for len(rest) > 0 && !in(given, rest[0]) {
			merged, rest = append(merged, rest[0]), rest[1:]
		}
		if in(live, element) {
			if len(rest) == 0 || !same(rest[0], element) {
				return nil, false
			}
			rest = rest[1:]
		}
		merged = append(merged, element)
	}
	return append(merged, rest...), true
}

// prune takes out of next what the manager applied before, does not any more, and nobody
// else owns. A collection goes as a whole where nobody owns anything in it any more.
func (a *application) prune() {
	given := a.own.set.without(a.set)
	if len(given) == 0 {
		return
	}
	kept := slices.Clone(a.set)
	for _, other := range a.others {
		kept = append(kept, other.set...)
	}
	slices.Sort(kept)
	gone := func(field string) bool { return given.has(field) && !kept.has(field) }
	abandoned := func(collection string) bool { return given.hasWithin(collection) && !kept.hasWithin(collection) }

	meta := objectMeta(a.next)
	for collection, values := range map[string]*map[string]string{labelsField: &meta.Labels, annotationsField: &meta.Annotations} {
		*values = maps.Clone(*values)
		maps.DeleteFunc(*values, func(key, _ string) bool { return abandoned(collection) || gone(keyField(collection, key)) })
	}
	meta.Finalizers = slices.DeleteFunc(slices.Clone(meta.Finalizers), func(name string) bool {
		return abandoned(finalizersField) || gone(finalizerField(name))
	})
	meta.OwnerReferences = slices.DeleteFunc(slices.Clone(meta.OwnerReferences), func(owner metav1.OwnerReference) bool {
		return abandoned(ownerReferencesField) || gone(ownerReferenceField(string(owner.UID)))
	})
	if gone(generateNameField) {
		meta.GenerateName = ""
	}
	for _, atomic := range a.owners.resource.Atomic {
		if gone(topField(atomic.Name)) {
			atomic.Copy(a.next, a.owners.resource.New())
		}
	}
}

// take takes from others what the configuration changes. It is false for a conflict that is
// not to be forced. What the configuration removes, nobody else owns.
func (a *application) take(touched fieldSet, force bool) bool {
	for i, other := range a.others {
		if !other.set.meets(touched) {
			continue
		}
		if !force {
			return false
		}
		a.moved = true
		set := other.set.without(touched)
		a.others[i].set = set
		a.others[i].entry.FieldsV1 = set.fieldsV1()
	}
	a.others = slices.DeleteFunc(a.others, func(c claim) bool { return len(c.set) == 0 })
	return true
}

// settle completes next. An entry's time is that of the manager's latest change of the
// object: an entry that is new without one has none. Where only defaults make the
// configuration what the object was already, nothing has changed.
func (a *application) settle(manager string, d difference) {
	o := a.owners
	o.resource.Strategy.Default(a.next)
	kept := slices.Equal(a.set, a.own.set)
	if kept && !a.moved && !d.empty() {
		d, _ = o.compare(a.live, a.next)
	}
	var owned []metav1.ManagedFieldsEntry
	for _, other := range a.others {
		owned = append(owned, other.entry)
	}
	if len(a.set) > 0 {
		own := metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: o.apiVersion,
			FieldsType: "FieldsV1", FieldsV1: a.own.entry.FieldsV1, Time: a.own.entry.Time,
		}
		if !kept {
			own.FieldsV1 = a.set.fieldsV1()
		}
		if !d.empty() || !sameNames(objectMeta(a.live), objectMeta(a.next)) {
			own.Time = now()
		}
		owned = append(owned, own)
	}
	slices.SortStableFunc(owned, compareEntries)
	objectMeta(a.next).ManagedFields = owned
}

// sameNames compares what a configuration may say that nobody owns.
func sameNames(a, b *metav1.ObjectMeta) bool {
	return a.Name == b.Name && a.Namespace == b.Namespace && a.UID == b.UID && a.ResourceVersion == b.ResourceVersion
}
