package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The user whose reads all servers limit together.
const (
	limitedToken = "the-token-of-the-limited-user"
	limitedQPS   = 5
	limitedBurst = 20
	// registrations are the keys of servers that limit together.
	registrations = "/berth/ratelimit/replicas/"
)

var limits = fmt.Sprintf("{apiVersion: berth/v1alpha1, kind: RateLimitConfiguration, overrides: [{users: [limited], read: {qps: %d, burst: %d}}]}", limitedQPS, limitedBurst)

// limited is the limited user: what was admitted of it since when.
type limited struct {
	*cluster
	began    time.Time
	admitted int
	bursts   int // how often clocks may have filled the bucket, and once at the beginning
}

// use sends requests to all servers until each has admitted five and one has refused another. So none
// locks the user out. It checks that not more were admitted than there may be.
func (l *limited) use(t *testing.T, when string) {
	t.Helper()
	const each = 5
	admitted, refused := map[string]int{}, false
	await(t, fmt.Sprintf("each server admits %d requests %s", each, when), func(ctx context.Context) error {
		least := each
		for _, r := range l.replicas {
			code, err := l.ask(ctx, r)
			switch {
			case err != nil:
				return err
			case code == http.StatusForbidden: // it may do nothing, but that is asked later
				l.admitted++
				admitted[r.name]++
			case code == http.StatusTooManyRequests:
				refused = true
			default:
				return fmt.Errorf("%s answers with %d", r.name, code)
			}
			least = min(least, admitted[r.name])
		}
		if least < each || !refused {
			return fmt.Errorf("%v, one has refused: %t", admitted, refused)
		}
		return nil
	})
	most := limitedBurst*l.bursts + int(limitedQPS*time.Since(l.began).Seconds()) + 1
	if l.admitted > most {
		t.Errorf("%d requests were admitted %s, more than %d", l.admitted, when, most)
	}
	t.Logf("%s: %d admitted of %d at most", when, l.admitted, most)
}

// ask sends a request, and returns the code of its answer.
func (l *limited) ask(ctx context.Context, r *replica) (code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/api/v1/namespaces/default/endpoints/any", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Auth-Token", limitedToken)
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// restart kills servers, waits as it is told, and starts them with a clock that is ahead.
func (l *limited) restart(t *testing.T, ahead time.Duration, down func(), all ...*replica) {
	t.Helper()
	for _, r := range all {
		r.kill()
		r.shift(t, ahead)
	}
	down()
	for _, r := range all {
		r.start(t)
	}
	for _, r := range all {
		awaitClock(t, r.http, r.url+"/livez", ahead)
	}
}

// Clocks that jump lock nobody out, and open a limit of all servers once at most, when one starts that
// is ahead of the others.
func TestClocksOfLimits(t *testing.T) {
	if !canShift() {
		t.Skip("there are no clocks to shift without -clocks")
	}
	c := newCluster(t)
	for _, r := range c.replicas {
		awaitClock(t, r.http, r.url+"/livez", 0)
	}
	l := &limited{cluster: c, began: time.Now(), bursts: 1}
	l.use(t, "at first")
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		for _, r := range c.replicas {
			r.shift(t, ahead)
			awaitClock(t, r.http, r.url+"/livez", ahead)
		}
		l.use(t, fmt.Sprint("when clocks are set to ", ahead))
	}
	atOnce := func() {}
	l.restart(t, -time.Hour, atOnce, c.replicas[0])
	l.use(t, "after a server has started an hour behind")
	l.bursts++
	l.restart(t, time.Hour, atOnce, c.replicas[1])
	l.use(t, "after a server has started an hour ahead")
	l.restart(t, 0, atOnce, c.replicas[1])
	l.use(t, "after it has started with the right clock")
	l.restart(t, 0, func() {
		await(t, "etcd has forgotten the servers", func(ctx context.Context) error {
			answer, err := c.direct.Get(ctx, registrations, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err == nil && answer.Count > 0 {
				err = errors.New("it has not")
			}
			return err
		})
	}, c.replicas...)
	l.use(t, "after all servers have started with the right clock")
}
