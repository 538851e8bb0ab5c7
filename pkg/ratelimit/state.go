package ratelimit

import "time"

// State is one bucket of a subject.
type State struct {
	Limit
	// Tokens is how many there are; below 0 the bucket owes some.
	Tokens float64
	// PerUser says that all tokens of the user share the bucket.
	PerUser bool
	// Alone says that the bucket is that of several servers, of which this one has no news: it
	// admits its share.
	Alone bool
}

// State returns the bucket of s for requests of a class as it is now, and takes nothing; false:
// s has no limit.
func (l *Limiter) State(now time.Time, s Subject, class Class) (State, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.advance(now)
	r := &l.policy.rules[l.policy.match(s.User, s.Groups)]
	if r.exempt {
		return State{}, false
	}
	state := State{Limit: r.limits[class], PerUser: r.perUser}
	state.Tokens = float64(state.Burst)
	if b := l.subjects.buckets[r.key(s, class)]; b != nil {
		b.setLimit(t, state.Limit)
		state.Tokens = b.rate.TokensAt(t)
	}
	return state, true
}
