package health

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One question is asked for all who wait for its answer, and for those who come shortly
// after. It does not end with the request that asked it.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		down := errors.New("down")
		check := Shared(func(ctx context.Context) error {
			asked++
			<-time.After(time.Second)
			if ctx.Err() != nil {
				t.Error("the question ended with a request")
			}
			return down
		})
		first, leave := context.WithCancel(t.Context())
		var probes sync.WaitGroup
		probes.Go(func() {
			if err := check(first); !errors.Is(err, down) {
				t.Errorf("the first got %v", err)
			}
		})
		synctest.Wait()
		leave()
		if err := check(first); err == nil {
			t.Error("a probe that has gone still waits")
		}
		for range 100 {
			probes.Go(func() {
				if err := check(t.Context()); !errors.Is(err, down) {
					t.Errorf("got %v", err)
				}
			})
		}
		probes.Wait()
		<-time.After(freshness)
		if err := check(t.Context()); !errors.Is(err, down) || asked != 1 {
			t.Errorf("got %v after %d questions, want 1", err, asked)
		}
		<-time.After(1)
		down = nil
		if err := check(t.Context()); err != nil || asked != 2 {
			t.Errorf("got %v after %d questions, want 2", err, asked)
		}
	})
}
