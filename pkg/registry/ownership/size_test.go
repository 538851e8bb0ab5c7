package ownership_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	for i := range ownership.MaxElements + 1 {
		finalizers = append(finalizers, fmt.Sprint("x/f-", i))
		owners = append(owners, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"})
	}
	const owner = `"k:{\"uid\":\"%d\"}":{".":{},"f:a":{}}`
	for name, tc := range map[string]struct{ within, beyond metav1.ObjectMeta }{
		"labels":          {metav1.ObjectMeta{Labels: labels(ownership.MaxFields)}, metav1.ObjectMeta{Labels: labels(ownership.MaxFields + 1)}},
		"maps together":   {metav1.ObjectMeta{Labels: labels(5000), Annotations: labels(5000)}, metav1.ObjectMeta{Labels: labels(5000), Annotations: labels(5001)}},
		"finalizers":      {metav1.ObjectMeta{Finalizers: finalizers[1:]}, metav1.ObjectMeta{Finalizers: finalizers}},
		"owners":          {metav1.ObjectMeta{OwnerReferences: owners[1:]}, metav1.ObjectMeta{OwnerReferences: owners}},
		"named labels":    {metav1.ObjectMeta{ManagedFields: naming("f:labels", `"f:%d":{}`, 9000)}, metav1.ObjectMeta{ManagedFields: naming("f:labels", `"f:%d":{}`, 10_000)}},
		"named owners":    {metav1.ObjectMeta{ManagedFields: naming("f:ownerReferences", owner, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:ownerReferences", owner, 1001)}},
		"escaped names":   {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"\u0076:\"%d\"":{}`, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"\u0076:\"%d\"":{}`, 20_000)}},
		"indexes":         {metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"i:%d":{}`, 1000)}, metav1.ObjectMeta{ManagedFields: naming("f:finalizers", `"i:%d":{}`, 20_000)}},
		"a manager's own": {metav1.ObjectMeta{ManagedFields: make([]metav1.ManagedFieldsEntry, ownership.MaxFields)}, metav1.ObjectMeta{ManagedFields: make([]metav1.ManagedFieldsEntry, ownership.MaxFields+1)}},
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
