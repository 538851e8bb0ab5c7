package clients

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// The times of the elections. A leader that cannot renew its lease gives up before others may
// take it over.
const (
	leaseDuration = 4 * time.Second
	renewDeadline = 3 * time.Second
	retryPeriod   = 200 * time.Millisecond
)

// election observes candidates for one lease: no two of them may lead at once.
type election struct {
	namespace string

	mu      sync.Mutex
	leading map[string]bool
	faults  []error
	changed chan struct{} // closed, and made anew, at each change
}

func newElection(namespace string) *election {
	return &election{namespace: namespace, leading: map[string]bool{}, changed: make(chan struct{})}
}

func (e *election) set(name string, leads bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leads {
		e.leading[name] = true
	} else {
		delete(e.leading, name)
	}
	if len(e.leading) > 1 {
		e.faults = append(e.faults, fmt.Errorf("several lead at once: %v", e.leading))
	}
	e.signal()
}

func (e *election) fault(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, err)
	e.signal()
}

func (e *election) signal() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// waitFor waits until one leads that is not the named one, and returns its name.
func (e *election) waitFor(t *testing.T, not string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		e.mu.Lock()
		faults, changed, leader := e.faults, e.changed, ""
		for name := range e.leading {
			leader = name
		}
		e.mu.Unlock()
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if leader != "" && leader != not {
			return leader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%q leads, and no other than %q comes", leader, not)
		}
	}
}

// candidate is one that stands for election.
type candidate struct {
	way  *gate // to the server
	stop context.CancelFunc
	done chan struct{} // closed when it no longer stands
}

// release has the candidate give up, with a word to the server if the way is open.
func (c *candidate) release() {
	c.stop()
	<-c.done
}

// kill ends the candidate as the end of its process would: without a word.
func (c *candidate) kill() {
	c.way.set(true)
	c.release()
}

// join has a candidate of that name stand for election until the test ends.
func (e *election) join(t *testing.T, name string) *candidate {
	t.Helper()
	// What the elector logs of the way that is cut tells nothing.
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	c := &candidate{way: &gate{}, stop: stop, done: make(chan struct{})}
	config := shared.config(t)
	config.Dial = c.way.dial
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &protobufOnly{next, e} })
	client := newClient(t, config)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: "controller"},
			Client:    client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				if ctx.Err() == nil { // it runs beside the election, and may come late
					e.set(name, true)
				}
			},
			OnStoppedLeading: func() { e.set(name, false) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		elector.Run(ctx)
	}()
	t.Cleanup(c.release)
	return c
}

// protobufOnly notes requests and answers about leases that are not protobuf.
type protobufOnly struct {
	next     http.RoundTripper
	election *election
}

func (p *protobufOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if got := req.Header.Get("Content-Type"); req.Body != nil && got != runtime.ContentTypeProtobuf {
		p.election.fault(fmt.Errorf("%s %s sends %s", req.Method, req.URL.Path, got))
	}
	resp, err := p.next.RoundTrip(req)
	if err == nil {
		if got := resp.Header.Get("Content-Type"); got != runtime.ContentTypeProtobuf {
			p.election.fault(fmt.Errorf("%s %s is answered with %s", req.Method, req.URL.Path, got))
		}
	}
	return resp, err
}

// Of three candidates one leads at any time. One that is killed is replaced, and so is one
// that is cut off from the server, which stops before; one that gives up is replaced at once.
func TestLeaderElection(t *testing.T) {
	t.Parallel()
	client, namespace, _ := sharedNamespace(t)
	e := newElection(namespace)
	candidates := map[string]*candidate{}
	for _, name := range []string{"a", "b", "c"} {
		candidates[name] = e.join(t, name)
	}
	leader := e.waitFor(t, "")
	replaced := func(name string) {
		t.Helper()
		leader = e.waitFor(t, name)
		lease, err := client.CoordinationV1().Leases(namespace).Get(t.Context(), "controller", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := *lease.Spec.HolderIdentity; got != leader {
			t.Errorf("the lease is held by %q, but %s leads", got, leader)
		}
		candidates[name+"'"] = e.join(t, name+"'") // three again
	}

	killed := leader
	candidates[killed].kill()
	replaced(killed)

	cut := leader
	candidates[cut].way.set(true)
	replaced(cut)

	released, start := leader, time.Now()
	candidates[released].release()
	replaced(released)
	if took := time.Since(start); took >= leaseDuration {
		t.Errorf("a lease that was released was taken after %v, as one that expired", took)
	}
	lease, err := client.CoordinationV1().Leases(namespace).Get(t.Context(), "controller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := *lease.Spec.LeaseTransitions; got < 3 {
		t.Errorf("got %d transitions, want 3", got)
	}
}
