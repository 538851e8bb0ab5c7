package attack

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// TestAborted gives up thousands of requests and watches, after which the server must have as
// many goroutines as before, and hardly more memory.
func TestAborted(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of its own")
	}
	const moreGoroutines = 20 // such as those of connections that have just been closed
	requests := 1000
	if *long {
		requests = 5000
	}
	s := startServer(t, harness.Build(t, false))
	s.fillCrowd(t)
	s.warmUp(t)
	goroutines, resident := s.metric(t, "go_goroutines"), s.memory(t, "VmRSS")

	client := s.client(t)
	paths := make(chan string)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for path := range paths {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				_, _, _ = exchange(ctx, client, s.URL, adminToken, http.MethodGet, path, "") // it is cut off
				cancel()
			}
		})
	}
	for i := range requests {
		paths <- []string{watchPath, crowdPath, initialEvents, crowdPath + "/large-0"}[i%4]
	}
	close(paths)
	all.Wait()
	client.CloseIdleConnections()

	s.eventually(t, "the goroutines are as many as before", func() bool {
		return s.metric(t, "go_goroutines") <= goroutines+moreGoroutines
	})
	if after := s.settle(t, resident+maxAfter); after > resident+maxAfter {
		t.Errorf("%v later the server has %d MB, was %d MB before", recovery, after>>20, resident>>20)
	}
}

// TestRevokedToken removes a token from the file while its user watches.
func TestRevokedToken(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of its own")
	}
	const token = "revoked-0123456789abcdef"
	s := startServer(t, harness.Build(t, false), token+",mallory,9")
	client := s.client(t)
	const watches = 100
	wrong := make(chan string, watches)
	var open, ended sync.WaitGroup
	for range watches {
		open.Add(1)
		ended.Go(func() {
			last, err := s.watchUntilItEnds(t.Context(), client, token, open.Done)
			if err != nil || !strings.Contains(last, `"code":401`) {
				wrong <- fmt.Sprintf("the watch ended with %.300q, %v, want a Status with code 401", last, err)
			}
		})
	}
	open.Wait()
	lines := strings.Replace(harness.ReadFile(t, s.tokens), token+",mallory,9\n", "", 1)
	harness.WriteFile(t, s.tokens+".new", lines)
	if err := os.Rename(s.tokens+".new", s.tokens); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d of %d watches: %s", len(wrong), watches, <-wrong)
	}
	if code, _, err := exchange(t.Context(), s.Client, s.URL, token, http.MethodGet, endpointsIn("default"), ""); err != nil || code != http.StatusUnauthorized {
		t.Errorf("afterwards: got %d, %v, want 401", code, err)
	}
}

// watchUntilItEnds watches, calls open once the server has answered, and returns the last line
// of the answer.
func (s *server) watchUntilItEnds(ctx context.Context, client *http.Client, token string, open func()) (last string, err error) {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+watchPath, http.NoBody)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	open()
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		last = lines.Text()
	}
	if err := lines.Err(); err != nil {
		return last, fmt.Errorf("after %d: %w", resp.StatusCode, err)
	}
	return last, nil
}
