package attack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// victimPeriod makes fifty requests a second.
	victimPeriod = 20 * time.Millisecond
	// victimTimeout is when the victim gives a request up.
	victimTimeout = 10 * time.Second
)

// sample is what became of the victim's requests.
type sample struct {
	mu        sync.Mutex
	latencies []time.Duration // from when each was due, failed ones included
	failed    map[string]int  // how many by what happened
}

// victimFor lets the victim work for a while beside what attack does, which must return once
// its context is done.
func (s *server) victimFor(t *testing.T, d time.Duration, attack func(context.Context)) *sample {
	t.Helper()
	out := &sample{failed: map[string]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { attack(ctx) })
	due := time.NewTicker(victimPeriod)
	defer due.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
		case at := <-due.C:
			all.Go(func() { out.add(at, s.ask(t.Context(), i)) })
		}
	}
	all.Wait()
	return out
}

// ask sends the victim's request of that number and returns what is wrong with the answer.
func (s *server) ask(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, victimTimeout)
	defer cancel()
	method, path, body, token := http.MethodGet, endpointsIn(victims)+"/base", "", victimToken
	want, headers, client := http.StatusOK, []string(nil), s.Client
	switch i % 10 {
	case 1, 6:
		path = endpointsIn(victims)
	case 2:
		method, path, want = http.MethodPost, endpointsIn(victims)+"?dryRun=All", http.StatusCreated
		body = strings.Replace(smallObject("x"), `"name":"x"`, `"generateName":"made-"`, 1)
	case 4:
		method, headers = http.MethodPatch, []string{"Content-Type", "application/merge-patch+json"}
		body = fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, i)
	case 5: // a token that the server has not seen yet
		token = newcomerToken(s.came.Add(1) % newcomers)
	case 7:
		token, path = adminToken, "/metrics"
	case 8:
		token, path = adminToken, "/api/v1/namespaces/default"
	case 9: // as clients do that run once, with a connection of its own
		transport := client.Transport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	code, answer, err := exchange(ctx, client, s.URL, token, method, path, body, headers...)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s %s: no answer in time", method, path)
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case code != want:
		return fmt.Errorf("%s %s: %d %.200s", method, path, code, answer)
	}
	return nil
}

func (s *sample) add(due time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latencies = append(s.latencies, time.Since(due))
	if err != nil {
		s.failed[err.Error()]++
	}
}

// success is the share of requests that succeeded.
func (s *sample) success() float64 {
	failed := 0
	for _, n := range s.failed {
		failed += n
	}
	return 1 - float64(failed)/float64(len(s.latencies))
}

func (s *sample) p99() time.Duration {
	sorted := slices.Sorted(slices.Values(s.latencies))
	return sorted[(len(sorted)*99+99)/100-1]
}

// failures names the most frequent failures.
func (s *sample) failures() string {
	texts := slices.SortedFunc(maps.Keys(s.failed), func(a, b string) int { return cmp.Compare(s.failed[b], s.failed[a]) })
	var b strings.Builder
	for _, text := range texts[:min(len(texts), 5)] {
		fmt.Fprintf(&b, "\n%d times %s", s.failed[text], text)
	}
	return b.String()
}

// warmUp lets the server answer each of the victim's requests once, so that what it makes on
// first use does not count.
func (s *server) warmUp(t *testing.T) {
	t.Helper()
	for i := range 10 {
		if err := s.ask(t.Context(), i); err != nil {
			t.Errorf("before the attack: %v", err)
		}
	}
}
