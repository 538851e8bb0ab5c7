package share

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func take(t *testing.T, p *Pool, user string, n int64, want error) *Taken {
	t.Helper()
	taken, err := p.TryTake(user, n)
	if !errors.Is(err, want) {
		t.Fatalf("TryTake(%q, %d) = %v, want %v", user, n, err, want)
	}
	return &taken
}

func TestTryTake(t *testing.T) {
	p := New(5, 2)
	first := take(t, p, "a", 2, nil)
	take(t, p, "a", 1, ErrUser)
	take(t, p, "b", 2, nil)
	take(t, p, "c", 2, ErrTotal)
	third := take(t, p, "c", 1, nil)
	if got, own := p.InUse(), p.UsedBy("b"); got != 5 || own != 2 || p.UsedBy("d") != 0 {
		t.Errorf("in use are %d, of one user %d; want 5 and 2", got, own)
	}
	first.GiveBack()
	first.GiveBack()
	third.GiveBack()
	if got := p.InUse(); got != 2 {
		t.Errorf("in use are %d, want 2", got)
	}
	if len(p.users) != 1 {
		t.Errorf("%d users are known, want the one that has something", len(p.users))
	}
	take(t, p, "a", 2, nil)
}

func TestWithoutBounds(t *testing.T) {
	p := New(0, 0)
	for range 1000 {
		take(t, p, "a", 1<<40, nil)
	}
}

// Who waits for a share of its own does not keep others waiting.
func TestTakeWaits(t *testing.T) {
	p := New(10, 4)
	first, err := p.Take(t.Context(), "a", 100)
	if err != nil || p.InUse() != 4 {
		t.Fatalf("%d in use, error %v; want all that one user may have", p.InUse(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := p.Take(ctx, "a", 1); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that the context was cancelled", err)
		}
	})
	got := make(chan struct{})
	waiting.Go(func() {
		second, err := p.Take(t.Context(), "a", 3)
		if err != nil {
			t.Error(err)
		}
		close(got)
		second.GiveBack()
	})
	other, err := p.Take(t.Context(), "b", 4)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-got:
		t.Error("a user has more than its share")
	default:
	}
	first.GiveBack()
	waiting.Wait()
	other.GiveBack()
	if p.InUse() != 0 || len(p.users) != 0 {
		t.Errorf("%d in use of %d users, want nothing", p.InUse(), len(p.users))
	}
}
