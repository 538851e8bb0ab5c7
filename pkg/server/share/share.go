// Package share bounds what requests take while they last, such as memory or places among
// the requests in progress, in all and for each user: no user can take it from the others.
package share

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Why something cannot be taken at once.
var (
	ErrUser  = errors.New("the user has as much as one user may have")
	ErrTotal = errors.New("all users together have as much as there is")
)

// Pool is what users share. Its methods are safe for concurrent use.
type Pool struct {
	total, perUser int64
	all            *semaphore.Weighted
	inUse          atomic.Int64

	mu    sync.Mutex
	users map[string]*account // only those that have or wait for something
}

type account struct {
	taken *semaphore.Weighted
	inUse atomic.Int64
	refs  int // guarded by Pool.mu
}

// New returns a pool of total, of which each user may have perUser at once. 0 is no bound;
// neither may be negative.
func New(total, perUser int64) *Pool {
	total, perUser = bound(total), bound(perUser)
	return &Pool{total: total, perUser: min(total, perUser), all: semaphore.NewWeighted(total), users: map[string]*account{}}
}

func bound(n int64) int64 {
	if n == 0 {
		return math.MaxInt64
	}
	return n
}

// InUse returns how much is taken now.
func (p *Pool) InUse() int64 { return p.inUse.Load() }

// UsedBy returns how much the user has taken now.
func (p *Pool) UsedBy(user string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.users[user]; a != nil {
		return a.inUse.Load()
	}
	return 0
}

// PerUser returns the most that one user may have, and Total what all may have together.
func (p *Pool) PerUser() int64 { return p.perUser }

// Total returns the most that all users may have together.
func (p *Pool) Total() int64 { return p.total }

// TryTake takes n for the user, or returns ErrUser or ErrTotal and takes nothing.
func (p *Pool) TryTake(user string, n int64) (Taken, error) {
	a := p.open(user)
	switch {
	case !a.taken.TryAcquire(n):
		p.close(user, a)
		return Taken{}, ErrUser
	case !p.all.TryAcquire(n):
		a.taken.Release(n)
		p.close(user, a)
		return Taken{}, ErrTotal
	}
	p.inUse.Add(n)
	a.inUse.Add(n)
	return Taken{p, user, a, n}, nil
}

// Take takes n for the user, or all that one user may have if that is less. It waits until
// there is enough, first for what the user itself has taken. If the context ends before, it
// returns its error, with ErrUser or ErrTotal for what it has waited for.
func (p *Pool) Take(ctx context.Context, user string, n int64) (Taken, error) {
	n = min(n, p.perUser)
	a := p.open(user)
	if err := a.taken.Acquire(ctx, n); err != nil {
		p.close(user, a)
		return Taken{}, fmt.Errorf("%w: %w", ErrUser, err)
	}
	if err := p.all.Acquire(ctx, n); err != nil {
		a.taken.Release(n)
		p.close(user, a)
		return Taken{}, fmt.Errorf("%w: %w", ErrTotal, err)
	}
	p.inUse.Add(n)
	a.inUse.Add(n)
	return Taken{p, user, a, n}, nil
}

func (p *Pool) open(user string) *account {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.users[user]
	if a == nil {
		a = &account{taken: semaphore.NewWeighted(p.perUser)}
		p.users[user] = a
	}
	a.refs++
	return a
}

func (p *Pool) close(user string, a *account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(p.users, user)
	}
}

// Taken is what somebody has of a pool. The zero Taken is nothing.
type Taken struct {
	pool *Pool
	user string
	of   *account
	n    int64
}

// Size returns how much it is.
func (t *Taken) Size() int64 { return t.n }

// GiveBack returns it to the pool. Further calls do nothing. It is for one goroutine.
func (t *Taken) GiveBack() {
	if t.pool == nil {
		return
	}
	t.pool.inUse.Add(-t.n)
	t.of.inUse.Add(-t.n)
	t.pool.all.Release(t.n)
	t.of.taken.Release(t.n)
	t.pool.close(t.user, t.of)
	*t = Taken{}
}
