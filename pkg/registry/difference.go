package registry

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// difference is how a typed object differs from another.
type difference struct {
	touched fieldSet // what is there, and was not so before
	removed fieldSet // what is not there any more
	unusual bool     // a name is not plain, or a list that must be a set is none
}

// maxElements is up to how many finalizers or owners are looked for in each other, which
// takes the square of their number. More are left to the library.
const maxElements = 256

// compare finds the fields of next that live does not have so, and those that only live
// has. ok is false for what fieldSet does not tell.
func (o *ownership) compare(live, next runtime.Object) (d difference, ok bool) {
	was, is := objectMeta(live), objectMeta(next)
	d.maps(labelsField, was.Labels, is.Labels)
	d.maps(annotationsField, was.Annotations, is.Annotations)
	if was.GenerateName != is.GenerateName {
		d.note(is.GenerateName != "", generateNameField)
	}
	d.finalizers(was.Finalizers, is.Finalizers)
	d.owners(was.OwnerReferences, is.OwnerReferences)
	for _, atomic := range o.resource.Atomic {
		was, is := atomic.IsSet(live), atomic.IsSet(next)
		if was != is || was && !atomic.Equal(live, next) {
			d.note(is, topField(atomic.Name))
		}
	}
	slices.Sort(d.touched)
	slices.Sort(d.removed)
	return d, !d.unusual
}

func (d *difference) empty() bool { return len(d.touched) == 0 && len(d.removed) == 0 }

// onlyTouches says whether a set has all that was touched and nothing of what was removed:
// the manager's set stays what it is.
func (d *difference) onlyTouches(set fieldSet) bool {
	foreign := func(field string) bool { return !set.has(field) }
	return !set.meets(d.removed) && !slices.ContainsFunc(d.touched, foreign)
}

// note takes down a field that differs: it is there, or it is not there any more.
func (d *difference) note(isThere bool, field string) {
	if isThere {
		d.touched = append(d.touched, field)
	} else {
		d.removed = append(d.removed, field)
	}
}

// element notes one of a collection by its name.
func (d *difference) element(isThere bool, field func(name string) string, name string) {
	if !plainName(name) {
		d.unusual = true
		return
	}
	d.note(isThere, field(name))
}

// collection notes that a map or list has come or gone; its elements are noted besides.
func (d *difference) collection(field string, was, is int) {
	if (was == 0) != (is == 0) {
		d.note(is > 0, field)
	}
}

func (d *difference) maps(collection string, was, is map[string]string) {
	d.collection(collection, len(was), len(is))
	field := func(key string) string { return keyField(collection, key) }
	for key, text := range is {
		if before, ok := was[key]; !ok || before != text {
			d.element(true, field, key)
		}
	}
	for key := range was {
		if _, ok := is[key]; !ok {
			d.element(false, field, key)
		}
	}
}

// finalizers are a set.
func (d *difference) finalizers(was, is []string) {
	d.collection(finalizersField, len(was), len(is))
	if len(was)+len(is) > maxElements {
		d.unusual = true
		return
	}
	note := func(isThere bool, finalizers, others []string) {
		for i, finalizer := range finalizers {
			if slices.Contains(finalizers[:i], finalizer) {
				d.unusual = true
			}
			if !slices.Contains(others, finalizer) {
				d.element(isThere, finalizerField, finalizer)
			}
		}
	}
	note(true, is, was)
	note(false, was, is)
}

// owners are keyed by their uid.
func (d *difference) owners(was, is []metav1.OwnerReference) {
	d.collection(ownerReferencesField, len(was), len(is))
	if len(was)+len(is) > maxElements {
		d.unusual = true
		return
	}
	find := func(owners []metav1.OwnerReference, owner *metav1.OwnerReference) int {
		return slices.IndexFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == owner.UID })
	}
	note := func(isThere bool, owners, others []metav1.OwnerReference) {
		for i := range owners {
			if find(owners[:i], &owners[i]) >= 0 {
				d.unusual = true
			}
			at := find(others, &owners[i])
			if at < 0 || isThere && !equality.Semantic.DeepEqual(owners[i], others[at]) {
				d.element(isThere, ownerReferenceField, string(owners[i].UID))
			}
		}
	}
	note(true, is, was)
	note(false, was, is)
}
