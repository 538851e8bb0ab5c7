package consumers

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// margin is what a machine under load may add to the times of an election.
const margin = 3 * time.Second

// TestElection has three processes stand for election. One that is killed is replaced within the
// lease's duration and one retry, one that gives up at its next retry, and across crashes of the
// server, short and long ones, no two lead at the same time: by their own words, and by every
// version of the lease.
func TestElection(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	leases := s.client(t).CoordinationV1().Leases(metav1.NamespaceDefault)
	history := followLeases(t, leases)
	e := &election{server: s, changed: make(chan struct{})}
	processes := map[string]*candidate{}
	for _, name := range []string{"a", "b", "c"} {
		processes[name] = e.join(t, name)
	}
	leader := e.await(t, "")
	replaced := func(signal syscall.Signal, within time.Duration) {
		t.Helper()
		begin, old := time.Now(), leader
		processes[old].end(signal)
		leader = e.await(t, old)
		took := time.Since(begin)
		if took >= within {
			t.Errorf("a leader that ended by %v was replaced after %v, want %v", signal, took, within)
		}
		proven.add("client-go", clientGoVersion(t), fmt.Sprintf("a leader that ended by %v is replaced", signal), []time.Duration{took})
		processes[old+"'"] = e.join(t, old+"'") // three again
	}
	replaced(syscall.SIGKILL, leaseDuration+longestRetry+margin)
	replaced(syscall.SIGTERM, leaseDuration)

	s.crash(t) // the leader may go on, or another follow
	restarted := time.Now()
	eventually(t, "a leader that renews the lease", func(ctx context.Context) error {
		lease, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if leaders, _ := e.leaders(); !slices.Equal(leaders, []string{*lease.Spec.HolderIdentity}) || lease.Spec.RenewTime.Time.Before(restarted) {
			return fmt.Errorf("%q lead, and the lease is %+v", leaders, lease.Spec)
		}
		return nil
	})

	s.Kill(t)
	e.until(t, func(leaders []string) bool { return len(leaders) == 0 })
	s.Restart(t)
	restarted = time.Now()
	e.await(t, "")
	if took := time.Since(restarted); took > leaseDuration+longestRetry+margin {
		t.Errorf("nobody led for %v after the server had come back", took)
	}
	for _, process := range processes {
		process.end(syscall.SIGTERM)
	}
	e.check(t)
	history.check(t)
	proven.add("client-go", clientGoVersion(t), "never two leaders, across two crashes of the server", nil)
}

// leaseHistory is a watch of leases that goes on across crashes.
type leaseHistory struct {
	leases typedcoordinationv1.LeaseInterface
	watch  watch.Interface
}

func followLeases(t *testing.T, leases typedcoordinationv1.LeaseInterface) *leaseHistory {
	t.Helper()
	list := must[*coordinationv1.LeaseList](t, "list")(leases.List(t.Context(), metav1.ListOptions{}))
	w, err := watchtools.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return leases.Watch(ctx, opts)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return &leaseHistory{leases, w}
}

// check reads the history up to now. A lease passes from one to another only after it was
// released or has run out, and each time is counted.
func (h *leaseHistory) check(t *testing.T) {
	t.Helper()
	last := must[*coordinationv1.Lease](t, "get")(h.leases.Get(t.Context(), leaseName, metav1.GetOptions{}))
	var before *coordinationv1.Lease
	for before == nil || before.ResourceVersion != last.ResourceVersion {
		var event watch.Event
		select {
		case event = <-h.watch.ResultChan():
		case <-time.After(patience):
			t.Fatalf("the history ends before version %s", last.ResourceVersion)
		}
		lease, ok := event.Object.(*coordinationv1.Lease)
		if !ok || event.Type == watch.Deleted || (event.Type == watch.Added) != (before == nil) {
			t.Fatalf("got %s of %+v", event.Type, event.Object)
		}
		if before != nil {
			checkPassing(t, before.Spec, lease.Spec)
		}
		before = lease
	}
	if got := *last.Spec.LeaseTransitions; got < 2 { // after the long crash the same may lead again
		t.Errorf("the lease passed %d times, want 2 or more", got)
	}
}

func checkPassing(t *testing.T, before, after coordinationv1.LeaseSpec) {
	t.Helper()
	from, to := *before.HolderIdentity, *after.HolderIdentity
	passed := *after.LeaseTransitions - *before.LeaseTransitions
	switch {
	case to == "" || from == to:
		if passed != 0 {
			t.Errorf("a lease that %q holds counts %d more passings", to, passed)
		}
	case passed != 1:
		t.Errorf("the lease passed from %q to %q, which counts %d", from, to, passed)
	case from != "" && after.AcquireTime.Sub(before.RenewTime.Time) < leaseDuration:
		t.Errorf("%q took the lease at %v, but %q had renewed it at %v", to, after.AcquireTime, from, before.RenewTime)
	}
}
