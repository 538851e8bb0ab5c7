package cluster

import (
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// BenchmarkAllow compares a request with that of a Limiter of this process alone.
func BenchmarkAllow(b *testing.B) {
	type limiter interface {
		Allow(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int) time.Duration
	}
	for _, bench := range []struct {
		name  string
		limit ratelimit.Limit
	}{
		{"admitted", ratelimit.Limit{QPS: 1000, Burst: 1e9}},
		{"refused", ratelimit.Limit{QPS: 0.0001, Burst: 1}},
	} {
		cfg := &ratelimit.Config{Defaults: ratelimit.Defaults{Read: &bench.limit}}
		run := func(start func(b *testing.B) limiter) func(*testing.B) {
			return func(b *testing.B) {
				l, s := start(b), newSubject()
				s.Groups = []string{"dev", "system:authenticated"}
				l.Allow(time.Now(), s, ratelimit.Read, 1)
				b.ReportAllocs()
				b.ResetTimer()
				for now := time.Now(); b.Loop(); {
					now = now.Add(time.Microsecond)
					l.Allow(now, s, ratelimit.Read, 1)
				}
			}
		}
		b.Run(bench.name+"/process", run(func(*testing.B) limiter { return ratelimit.New(cfg) }))
		b.Run(bench.name+"/cluster", run(func(b *testing.B) limiter { return startReplicas(b, 1, cfg)[0] }))
	}
}
