package registry_test

import (
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkGone fails the test while the namespace has an object e.
func (s *stores) checkGone(t testing.TB, namespace string) {
	t.Helper()
	_, err := s.endpoints.Get(t.Context(), namespace, "e", &metav1.GetOptions{})
	checkStatus(t, err, 404, "not found")
}

// Finalizers hold an object; those that wait for dependents, of which there are none here,
// never do.
func TestFinalizersNeverStick(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	foreground, orphan := metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan
	for name, tc := range map[string]struct {
		finalizers []string
		policy     *metav1.DeletionPropagation
		held       bool // until the other finalizers are gone
	}{
		"none":                        {nil, nil, false},
		"foreground policy":           {nil, &foreground, false},
		"orphan policy":               {nil, &orphan, false},
		"foreground finalizer":        {[]string{metav1.FinalizerDeleteDependents}, nil, false},
		"orphan finalizer":            {[]string{metav1.FinalizerOrphanDependents}, &foreground, false},
		"another":                     {[]string{"example.com/hold"}, nil, true},
		"another with the foreground": {[]string{metav1.FinalizerDeleteDependents, "example.com/hold"}, &foreground, true},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newEndpoints("e")
			obj.Finalizers = tc.finalizers
			s.create(t, ns, obj)
			for range 2 { // to delete it again changes nothing
				if _, _, err := s.endpoints.Delete(t.Context(), ns, "e", &metav1.DeleteOptions{PropagationPolicy: tc.policy}); err != nil {
					t.Fatal(err)
				}
				if !tc.held {
					s.checkGone(t, ns)
					return
				}
				marked := s.get(t, ns, "e")
				if marked.DeletionTimestamp == nil || marked.DeletionGracePeriodSeconds == nil {
					t.Fatalf("not marked: %v", marked.ObjectMeta)
				}
			}
			marked := s.get(t, ns, "e")
			resurrected := marked.DeepCopy()
			resurrected.DeletionTimestamp = nil
			resurrected.Annotations = map[string]string{"n": "1"}
			if resurrected = s.update(t, resurrected); !resurrected.DeletionTimestamp.Equal(marked.DeletionTimestamp) {
				t.Errorf("deletionTimestamp is %v after an update, was %v", resurrected.DeletionTimestamp, marked.DeletionTimestamp)
			}
			released := resurrected.DeepCopy()
			released.Finalizers = released.Finalizers[:len(released.Finalizers)-1]
			s.update(t, released)
			s.checkGone(t, ns)
		})
	}
}

// Of those who take their finalizer away and those who delete, whoever comes last removes
// the object: it is gone in the end, and nobody sees an error.
func TestFinalizersUnderRaces(t *testing.T) {
	t.Parallel()
	s := newStores(t, shared.store)
	ns := s.newNamespace(t)
	for range 10 {
		obj := newEndpoints("e")
		for i := range 5 {
			obj.Finalizers = append(obj.Finalizers, fmt.Sprintf("example.com/hold-%d", i))
		}
		s.create(t, ns, obj)
		var racing sync.WaitGroup
		for i := range 5 {
			racing.Go(func() {
				for {
					got, err := s.endpoints.Get(t.Context(), ns, "e", &metav1.GetOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					next := typed[*corev1.Endpoints](t, got)
					var rest []string
					for _, finalizer := range next.Finalizers {
						if finalizer != obj.Finalizers[i] {
							rest = append(rest, finalizer)
						}
					}
					next.Finalizers = rest
					if _, _, _, err := s.endpoints.Update(t.Context(), ns, "e", "", next, updateOptions()); err == nil {
						return
					} else if !apierrors.IsConflict(err) {
						t.Error(err)
						return
					}
				}
			})
		}
		racing.Go(func() {
			if _, _, err := s.endpoints.Delete(t.Context(), ns, "e", &metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
		racing.Wait()
		s.checkGone(t, ns)
	}
}
