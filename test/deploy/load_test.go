package deploy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// answer is what a client makes of one.
type answer struct {
	code       int
	retryAfter time.Duration
	took       time.Duration
}

// ask reads something small with a token.
func (c *client) ask(ctx context.Context, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, collection+"?limit=1", nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return answer{resp.StatusCode, time.Duration(seconds) * time.Second, time.Since(began)}, err
}

// load is what clients have sent at once.
type load struct {
	admitted, refused, failed atomic.Int64
	mu                        sync.Mutex
	sent                      []time.Time     // of each request
	took                      []time.Duration // of admitted requests
}

// send has each client send so many requests a second for some time, or fewer if the machine is too
// busy, whatever becomes of them.
func (l *load) send(t *testing.T, clients []*client, token string, perSecond int, d time.Duration) (took time.Duration) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var sending sync.WaitGroup
	for _, c := range clients {
		sending.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(perSecond))
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				sending.Go(func() { l.one(t, c, token) })
			}
		})
	}
	sending.Wait()
	return time.Since(began)
}

func (l *load) one(t *testing.T, c *client, token string) {
	sent := time.Now()
	a, err := c.ask(t.Context(), token)
	if network := (*net.OpError)(nil); errors.As(err, &network) && network.Op == "dial" {
		return // nobody was asked
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, sent)
	switch {
	case err != nil, a.code == http.StatusGatewayTimeout:
		l.failed.Add(1) // of a server that was killed meanwhile, or of a machine that is too busy
	case a.code == http.StatusOK:
		l.admitted.Add(1)
		l.took = append(l.took, a.took)
	case a.code != http.StatusTooManyRequests || a.retryAfter < time.Second:
		t.Errorf("answered with %+v", a)
	default:
		l.refused.Add(1)
	}
}

// ideal returns how many of the requests one bucket would admit. It counts only the time in which they
// were really sent.
func (l *load) ideal(limit rate.Limit, burst int) (n int) {
	slices.SortFunc(l.sent, time.Time.Compare)
	bucket := rate.NewLimiter(limit, burst)
	for _, at := range l.sent {
		if bucket.AllowN(at, 1) {
			n++
		}
	}
	return n
}

func (l *load) percentile(p float64) time.Duration {
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return 0
	}
	return l.took[int(p*float64(len(l.took)-1))]
}
