package cluster

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// registerInterval is how often a replica says that it is there, and registrationTTL how long
	// the others believe it.
	registerInterval = 3 * time.Second
	registrationTTL  = 10 * time.Second
	// sweepInterval is how often buckets are looked at that nobody uses.
	sweepInterval = time.Second
	// extraIdle and blockIdle are how long tokens and blocks are kept that nobody uses, and
	// bucketIdle how long a bucket is known after that.
	extraIdle  = time.Second
	blockIdle  = time.Minute
	bucketIdle = 10 * time.Second
	// sweepBatch is how many buckets are looked at while requests wait.
	sweepBatch = 512
	// retryPause is how long to wait before asking a store again that did not answer.
	retryPause = 500 * time.Millisecond
	// registerTimeout bounds a registration, and stopTimeout what a replica that stops has to give back.
	registerTimeout = 2 * time.Second
	stopTimeout     = 2 * time.Second
)

// Run follows the other replicas, gives back what is not used, and says that this one is there,
// until ctx ends. Then it gives everything back, within two seconds. Requests must have ended.
func (l *Limiter) Run(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() { l.follow(ctx) })
	defer following.Wait()
	registration := l.register(ctx, 0)
	registered, sweep := time.NewTicker(registerInterval), time.NewTicker(sweepInterval)
	defer registered.Stop()
	defer sweep.Stop()
	for {
		var retry <-chan time.Time
		if l.hasFailed() {
			retry = time.After(retryPause)
		}
		select {
		case <-registered.C:
			registration = l.register(ctx, registration)
		case <-retry:
			registration = l.register(ctx, registration)
		case <-sweep.C:
			l.sweep()
		case <-l.wake:
		case <-ctx.Done():
			l.stop(context.WithoutCancel(ctx), registration)
			return
		}
		l.giveBack(ctx)
	}
}

// register writes that this replica is there, with its time, and returns the revision of that. An
// answer of the store ends a failure.
func (l *Limiter) register(ctx context.Context, registration int64) int64 {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	for range maxAttempts {
		sent := l.now()
		l.mu.Lock()
		_, t := l.advance(sent)
		l.mu.Unlock()
		value := strconv.AppendInt(nil, t, 10)
		response, err := l.store.Put(ctx, replicaPrefix+l.replica, value, storage.PutOptions{Expect: registration, TTL: registrationTTL, Reserve: storage.ForShrinking})
		if err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return registration
			}
			l.mu.Lock()
			l.fail(err)
			l.mu.Unlock()
			return registration
		}
		if response.Succeeded {
			l.metrics.registrations.Inc()
			l.registered(sent)
			return response.Revision
		}
		if response.Current != nil { // by a write whose outcome was unknown
			registration = response.Current.ModRevision
			continue
		}
		registration = 0
		l.mu.Lock()
		l.sessionUntil = time.Time{} // it has ended
		l.mu.Unlock()
	}
	return registration
}

// registered notes that the replica was registered by a write that was sent at some time.
func (l *Limiter) registered(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !sent.Before(l.sessionUntil) {
		l.session++ // the others may have taken it for dead, and its blocks for used
	}
	l.sessionUntil = sent.Add(registrationTTL - ttlMargin)
	if l.failed {
		l.failed = false
		l.logger.Info().Msg("rate limits are exact again over all servers: etcd answers")
	}
}

// fail has the replica admit its share alone until the store answers. l.mu must be held.
func (l *Limiter) fail(err error) {
	if l.failed {
		return
	}
	l.failed, l.share = true, l.peers.count()
	l.logger.Warn().Err(err).Int("servers", l.share).Msg("etcd does not answer in time for rate limits: this server admits its share of each rate alone, until it does")
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Limiter) hasFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// sweep drops the buckets that nobody uses, and finds what is to be given back.
func (l *Limiter) sweep() {
	for at, more := 0, true; more; {
		at, more = l.sweepFrom(at)
	}
}

func (l *Limiter) sweepFrom(at int) (next int, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, t := l.advance(l.now())
	session := l.validSession(now)
	for range sweepBatch {
		if at >= len(l.slots) {
			return 0, false
		}
		b := l.slots[at]
		idle := now.Sub(b.usedAt)
		b.lapse(now, t, session)
		switch {
		case b.asking != nil || b.waiters > 0 || b.queued:
		case b.isEmpty() && idle > bucketIdle && t > b.dry && b.shared.own(l.replica) == 0:
			l.drop(b) // moves another one to at
			continue
		case b.block != nil && idle > blockIdle, b.block == nil && b.shared.own(l.replica) > 0,
			b.extra >= 1 && idle > extraIdle, b.owed+b.unpaid > 0:
			l.tell(b)
		}
		at++
	}
	return at, true
}

// giveBack tells the store what queued buckets have, one after the other. What is queued meanwhile
// is for the next time: a bucket that others always change first is queued again.
func (l *Limiter) giveBack(ctx context.Context) {
	l.mu.Lock()
	queued := len(l.returns)
	l.mu.Unlock()
	for ; queued > 0 && ctx.Err() == nil; queued-- {
		l.mu.Lock()
		if len(l.returns) == 0 || l.failed {
			l.mu.Unlock()
			return
		}
		b := l.returns[0]
		l.returns = l.returns[1:]
		b.queued = false
		if b.asking != nil { // which gives back as well
			l.mu.Unlock()
			continue
		}
		l.transact(b, 0)
	}
}

// stop gives back what the replica has, as far as there is time, and ends the registration, which
// gives back the rest.
func (l *Limiter) stop(ctx context.Context, registration int64) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	l.mu.Lock()
	for _, b := range l.slots {
		if b.block != nil || !b.isEmpty() {
			l.tell(b)
		}
	}
	l.mu.Unlock()
	l.giveBack(ctx)
	if registration > 0 && !l.hasFailed() {
		_, _ = l.store.Delete(ctx, replicaPrefix+l.replica, storage.DeleteOptions{Expect: registration}) // it ends by itself
	}
}
