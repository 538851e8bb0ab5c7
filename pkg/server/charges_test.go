package server

import (
	"context"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// watched is a resource whose watches and patches have a cost.
type watched struct {
	*fakeResource
	cost   object.WatchCost
	weight int
}

func (w *watched) Watch(ctx context.Context, _ string, _ *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	return func(yield func([]object.Event, error) bool) { <-ctx.Done() }, w.cost, nil
}

func (w *watched) Patch(string, string, string, types.PatchType, []byte, *metav1.PatchOptions) (func(context.Context) (*object.Object, bool, []string, error), int, error) {
	return func(ctx context.Context) (*object.Object, bool, []string, error) {
		obj, err := w.get(ctx)
		return obj, false, nil, err
	}, w.weight, nil
}

// A patch is charged for its work before it is done.
func TestPatchesAreChargedByTheirWork(t *testing.T) {
	obj, applied := named(t, "a", 0), 0
	resource := &watched{fakeResource: &fakeResource{get: func(context.Context) (*object.Object, error) {
		applied++
		return obj, nil
	}}, weight: 12 * writeBytes}
	cfg := testConfig(t, resource)
	withUsers(t, &cfg)
	cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Write: &ratelimit.Limit{QPS: 0.5, Burst: 20}}})
	s := newTestServer(t, cfg)
	patch := func() *httptest.ResponseRecorder {
		req := requestOf(t, "alice", http.MethodPatch, testPath+"/a", "{}")
		req.Header.Set("Content-Type", "application/merge-patch+json")
		return serveOnce(s, req)
	}
	if w := patch(); w.Code != http.StatusOK || applied != 1 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	const words = "this one counts as 13 because of what its patch moves, copies or merges; try again in"
	if w := patch(); w.Code != http.StatusTooManyRequests || applied != 1 || !strings.Contains(w.Body.String(), words) {
		t.Errorf("got %d %s, applied %d times", w.Code, w.Body, applied)
	}
}

// A watch is charged for what it compares to begin, and takes more places for large selectors,
// which it gives back.
func TestWatchesAreChargedForTheirSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resource := &watched{&fakeResource{}, object.WatchCost{Comparisons: 5 * comparisons, Requirements: 25}, 0}
		cfg := testConfig(t, resource)
		withUsers(t, &cfg)
		cfg.MaxWatches, cfg.MaxWatchesPerUser = 100, 5
		cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: &ratelimit.Limit{QPS: 0.001, Burst: 20}}})
		s := newTestServer(t, cfg)
		open := make(chan struct{})
		go func() {
			defer close(open)
			serveOnce(s, requestOf(t, "alice", http.MethodGet, testPath+"?watch=1&timeoutSeconds=10", ""))
		}()
		synctest.Wait()
		if n := s.pools.watches.InUse(); n != 3 {
			t.Errorf("the watch has %d places, want 3", n)
		}
		w := serveOnce(s, requestOf(t, "alice", http.MethodGet, testPath+"?watch=1", ""))
		if words := "the limit of open watches (this one counts as 3 because of its selectors), 5 for each user, is reached"; w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), words) {
			t.Errorf("another watch: got %d %s", w.Code, w.Body)
		}
		<-open
		if n := s.pools.watches.InUse(); n != 0 {
			t.Errorf("%d places are not given back", n)
		}
		alice, _, _ := cfg.Authenticator.Authenticate(t.Context(), "alice")
		left := 0
		for cfg.Limiter.Allow(time.Now(), ratelimit.Subject{Token: alice.ID, User: "alice"}, ratelimit.Read, 1) == 0 {
			left++
		}
		if want := 20 - 2*6; left != want {
			t.Errorf("%d tokens are left, want %d", left, want)
		}
	})
}

// Administrators do not wait for the memory that users have.
func TestMemoryOfAdministrators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := named(t, "a", 3<<20) // 43 MB as a table
		cfg := testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return large, nil }})
		withUsers(t, &cfg)
		s := newTestServer(t, cfg)
		for _, user := range []string{"alice", "bob"} {
			taken, err := s.pools.memory.TryTake(user, s.pools.memory.PerUser())
			if err != nil {
				t.Fatal(err)
			}
			defer taken.GiveBack()
		}
		for user, want := range map[string]struct {
			code int
			wait time.Duration
		}{"root": {http.StatusOK, 0}, "carol": {http.StatusTooManyRequests, memoryWait}} {
			req := requestOf(t, user, http.MethodGet, testPath+"/a", "")
			req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
			begin := time.Now()
			if w := serveOnce(s, req); w.Code != want.code || time.Since(begin) != want.wait {
				t.Errorf("%s got %d after %v: %.300s", user, w.Code, time.Since(begin), w.Body)
			}
		}
		if n := s.pools.reserved.InUse(); n != 0 {
			t.Errorf("%d bytes are not given back", n)
		}
	})
}
