package registry_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Fifty writers who each read, count up by one and try again on a conflict, through two
// servers, lose nothing.
func TestFiftyWritersLoseNothing(t *testing.T) {
	t.Parallel()
	servers := []*stores{newStores(t, shared.store), newStores(t, shared.store)}
	ns := servers[0].newNamespace(t)
	obj := newEndpoints("a")
	obj.Annotations = map[string]string{"count": "0"}
	servers[0].create(t, ns, obj)
	servers[1].get(t, ns, "a") // whose cache has it from now on
	var writers sync.WaitGroup
	var conflicts atomic.Int64
	const each, many = 2, 50
	for i := range many {
		writers.Go(func() {
			s := servers[i%2]
			for done := 0; done < each; {
				got, err := s.endpoints.Get(t.Context(), ns, "a", &metav1.GetOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				next := typed[*corev1.Endpoints](t, got)
				count, err := strconv.Atoi(next.Annotations["count"])
				if err != nil {
					t.Error(err)
					return
				}
				next.Annotations["count"] = strconv.Itoa(count + 1)
				_, _, _, err = s.endpoints.Update(t.Context(), ns, "a", "", next, updateOptions())
				switch {
				case err == nil:
					done++
				case apierrors.IsConflict(err):
					conflicts.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	if got := servers[1].get(t, ns, "a").Annotations["count"]; got != strconv.Itoa(each*many) {
		t.Errorf("counted to %s, want %d (%d conflicts)", got, each*many, conflicts.Load())
	}
}

// An update without a version never conflicts, and each is a version of its own.
func TestUnconditionalUpdatesNeverConflict(t *testing.T) {
	t.Parallel()
	servers := []*stores{newStores(t, shared.store), newStores(t, shared.store)}
	ns := servers[0].newNamespace(t)
	created := servers[0].create(t, ns, newEndpoints("a"))
	const many = 50
	versions := make(chan string, many)
	var writers sync.WaitGroup
	for i := range many {
		writers.Go(func() {
			next := newEndpoints("a")
			next.Annotations = map[string]string{"writer": strconv.Itoa(i)}
			updated, made, _, err := servers[i%2].endpoints.Update(t.Context(), ns, "a", "", next, updateOptions())
			if err != nil || made {
				t.Errorf("created %v, %v", made, err)
				return
			}
			got := typed[*corev1.Endpoints](t, updated)
			if got.Annotations["writer"] != strconv.Itoa(i) || got.UID != created.UID {
				t.Errorf("writer %d got %v", i, got.ObjectMeta)
			}
			versions <- got.ResourceVersion
		})
	}
	writers.Wait()
	close(versions)
	unique := map[string]bool{}
	for version := range versions {
		unique[version] = true
	}
	if len(unique) != many {
		t.Errorf("%d versions of %d updates", len(unique), many)
	}
}

// Of many updates of an object that is not there, one creates and the others update.
func TestCreateOnUpdateRaces(t *testing.T) {
	t.Parallel()
	servers := []*stores{newStores(t, shared.store), newStores(t, shared.store)}
	ns := servers[0].newNamespace(t)
	for round := range 5 {
		name := fmt.Sprintf("e-%d", round)
		var created atomic.Int64
		uids := make(chan types.UID, 20)
		var writers sync.WaitGroup
		for i := range cap(uids) {
			writers.Go(func() {
				next := newEndpoints(name)
				next.Annotations = map[string]string{"writer": strconv.Itoa(i)}
				obj, made, _, err := servers[i%2].endpoints.Update(t.Context(), ns, name, "", next, updateOptions())
				if err != nil {
					t.Error(err)
					return
				}
				if made {
					created.Add(1)
				}
				uids <- typed[*corev1.Endpoints](t, obj).UID
			})
		}
		writers.Wait()
		close(uids)
		unique := map[types.UID]bool{}
		for uid := range uids {
			unique[uid] = true
		}
		if created.Load() != 1 || len(unique) != 1 {
			t.Errorf("%d created, %d uids", created.Load(), len(unique))
		}
	}
}
