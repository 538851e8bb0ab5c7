package ownership_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/ownership"
)

func labels(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprint("label-", i)] = "x"
	}
	return all
}

// naming is the managedFields of one manager, with n names in random order, each with its
// number in the place of %d.
func naming(parent, name string, n int) []metav1.ManagedFieldsEntry {
	names := make([]string, n)
	for i, number := range rand.Perm(n) {
		names[i] = fmt.Sprintf(name, number)
	}
	set := `{"f:metadata":{"` + parent + `":{` + strings.Join(names, ",") + `}}}`
	return []metav1.ManagedFieldsEntry{{
		Manager: "m", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(set),
	}}
}

func endpointsWith(metadata metav1.ObjectMeta) *corev1.Endpoints {
	e := large(1, "10.0.0.1")
	metadata.Name = "e"
	e.ObjectMeta = metadata
	return e
}

// Whatever the library takes the square of is bounded, in the object and in what the client
// says of owners.
func TestSizeIsBounded(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	var finalizers []string
	var owners []metav1.OwnerReference
	for i := range ownership.MaxItems + 1 {
		finalizers = append(finalizers, fmt.Sprint("x/f-", i))
		owners = append(owners, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: types.UID(fmt.Sprint("u-", i))})
	}
	const owner = `"k:{\"uid\":\"%d\"}":{".":{},"f:a":{}}`
	for name, tc := range map[string]struct{ within, beyond metav1.ObjectMeta }{
		"labels":         {metav1.ObjectMeta{Labels: labels(ownership.MaxFields)}, metav1.ObjectMeta{Labels: labels(ownership.MaxFields + 1)}},
		"maps together":  {metav1.ObjectMeta{Labels: labels(5000), Annotations: labels(5000)}, metav1.ObjectMeta{Labels: labels(5000), Annotations: labels(5001)}},
		"finalizers":     {metav1.ObjectMeta{Finalizers: finalizers[1:]}, metav1.ObjectMeta{Finalizers: finalizers}},
		"owners":         {metav1.ObjectMeta{OwnerReferences: owners[1:]}, metav1.ObjectMeta{OwnerReferences: owners}},
		"named labels":   {metav1.ObjectMeta{ManagedFields: naming("f:labels", `"f:%d":{}`, 9000)}, metav1.ObjectMeta{ManagedFields: naming("f:labels", `"f:%d":{}`, 10_000)}},
		"named owners":   {metav1.ObjectMeta{ManagedFields: naming("f:ownerReferences", owner, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:ownerReferences", owner, 1001)}},
		"escaped names":  {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"\u0076:\"%d\"":{}`, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"\u0076:\"%d\"":{}`, 20_000)}},
		"indexes":        {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"i:%d":{}`, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"i:%d":{}`, 20_000)}},
		"names of lists": {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"v:[%d,[],{}]":{}`, 200)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"v:[%d,[],{}]":{}`, 201)}},
		"nested names":   {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"v:[%d]":{}`, 1)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"v:`+strings.Repeat("[", 1000)+"%d"+strings.Repeat("]", 1000)+`":{}`, 2)}},
		"managers":       {metav1.ObjectMeta{ManagedFields: make([]metav1.ManagedFieldsEntry, ownership.MaxItems)}, metav1.ObjectMeta{ManagedFields: make([]metav1.ManagedFieldsEntry, ownership.MaxItems+1)}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := m.Update(&corev1.Endpoints{}, endpointsWith(tc.within), "one"); err != nil {
				t.Errorf("within the limit: %v", err)
			}
			beyond := endpointsWith(tc.beyond)
			if err := m.Update(&corev1.Endpoints{}, beyond, "one"); !apierrors.IsInvalid(err) {
				t.Errorf("beyond the limit: %v", err)
			}
			if len(tc.beyond.ManagedFields) > 0 {
				return // an apply must not have any
			}
			// What is there already, since an older server let it in, may stay.
			if err := m.Update(beyond, beyond.DeepCopy(), "one"); err != nil {
				t.Errorf("no more than before: %v", err)
			}
			if _, err := m.Apply(nil, configOf(beyond), "one", false); !apierrors.IsInvalid(err) {
				t.Errorf("apply: %v", err)
			}
		})
	}
}

// The fault names the field.
func TestMaxItems(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	for field, metadata := range map[string]metav1.ObjectMeta{
		"finalizers":      {Finalizers: make([]string, 501)},
		"ownerReferences": {OwnerReferences: make([]metav1.OwnerReference, 501)},
		"managedFields":   {ManagedFields: make([]metav1.ManagedFieldsEntry, 501)},
	} {
		err := m.Update(&corev1.Endpoints{}, endpointsWith(metadata), "one")
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata."+field+": Too many: 501: must have at most 500 items") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// An object that was stored without bounds can be changed without the library, which would take
// minutes; it may become smaller, and no larger. An apply has to wait until it is small enough.
func TestObjectsBeyondTheBounds(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	live := endpointsWith(metav1.ObjectMeta{ManagedFields: naming("f:labels", `"f:%d":{}`, 10)})
	for i := range 100_000 {
		live.Finalizers = append(live.Finalizers, fmt.Sprint("x/f-", i))
	}
	if _, err := m.Apply(live, configOf(endpointsWith(metav1.ObjectMeta{Labels: labels(1)})), "one", false); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "the stored object has 0 fields and 100000 elements") {
		t.Errorf("an apply: %v", err)
	}
	next := live.DeepCopy()
	next.ManagedFields, next.Finalizers, next.Labels = nil, next.Finalizers[1:], labels(1)
	if err := m.Update(live, next, "one"); err != nil || !cmp.Equal(next.ManagedFields, live.ManagedFields) {
		t.Errorf("an update: %v, %v", next.ManagedFields, err)
	}
	next.Finalizers = append(next.Finalizers, "x/a", "x/b")
	if err := m.Update(live, next, "one"); !apierrors.IsInvalid(err) {
		t.Errorf("one more finalizer: %v", err)
	}
	next.Finalizers, next.ManagedFields = nil, nil
	if err := m.Update(live, next, "one"); err != nil {
		t.Errorf("without finalizers: %v", err)
	}
	if _, err := m.Apply(next, configOf(endpointsWith(metav1.ObjectMeta{Labels: labels(1)})), "one", true); err != nil {
		t.Errorf("an apply afterwards: %v", err)
	}
}

// Applies that are within the limits do not add up to more, and lists that are owned as a
// whole do not count, for any manager.
func TestSizeOfApplies(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	half := func(prefix string) *corev1.Endpoints {
		e := endpointsWith(metav1.ObjectMeta{Labels: map[string]string{}})
		for name := range labels(6000) {
			e.Labels[prefix+name] = "x"
		}
		return e
	}
	live, err := m.Apply(nil, configOf(half("a")), "one", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(live, configOf(half("b")), "two", false); !apierrors.IsInvalid(err) {
		t.Errorf("labels that add up: %v", err)
	}
	if _, err := m.Apply(live, configOf(half("a")), "two", false); !apierrors.IsInvalid(err) {
		t.Errorf("owners that add up: %v", err)
	}
	long := large(2*ownership.MaxElements, "10.0.0.1")
	long.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}
	if _, err := m.Apply(live, configOf(long), "kubectl", true); err != nil {
		t.Errorf("many addresses: %v", err)
	}
}

// The error for a configuration of nothing but unknown fields is not many times its size.
func TestLongFaultsOfApply(t *testing.T) {
	m := newManager(t, endpointsKind, converter)
	config := configOf(endpointsWith(metav1.ObjectMeta{}))
	var subsets []any
	for range 5000 {
		subsets = append(subsets, map[string]any{"unknown": "x"})
	}
	config.Object["subsets"] = subsets
	_, err := m.Apply(nil, config, "one", false)
	if !apierrors.IsBadRequest(err) || len(err.Error()) > 9<<10 || !strings.HasSuffix(err.Error(), " ...") {
		t.Errorf("got %.300v", err)
	}
}
