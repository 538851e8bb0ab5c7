package iam

import (
	"net/netip"
	"sync"
	"time"
)

// maxLockouts bounds the users and addresses of which wrong passwords are remembered, at some
// 150 bytes each. Beyond it the oldest is forgotten.
const maxLockouts = 1 << 14

// lockouts remembers wrong passwords, by user and address: nobody is locked out by what another
// address does.
type lockouts struct {
	mu      sync.Mutex
	entries map[lockoutKey]*lockoutEntry
	order   []lockoutKey // a ring of the keys in the order they came
	next    int          // in order
}

type lockoutKey struct {
	user    ID
	address netip.Addr
}

type lockoutEntry struct {
	slot     int // in order
	attempts int // since began
	began    time.Time
	until    time.Time // zero: not locked
}

func newLockouts() *lockouts { return &lockouts{entries: map[lockoutKey]*lockoutEntry{}} }

// locked reports whether the user is locked out at the address.
func (l *lockouts) locked(now time.Time, user ID, address netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[lockoutKey{user, address}]
	return e != nil && now.Before(e.until)
}

// failed notes a wrong password, and reports whether it has locked the user out.
func (l *lockouts) failed(now time.Time, c lockoutConfig, user ID, address netip.Addr) bool {
	if c.attempts == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := lockoutKey{user, address}
	e := l.entries[key]
	if e == nil {
		e = l.add(key)
	}
	if now.Before(e.until) {
		return false // it is locked already, and no longer for it
	}
	if now.Sub(e.began) > c.within || !e.until.IsZero() {
		e.attempts, e.began, e.until = 0, now, time.Time{}
	}
	if e.attempts++; e.attempts < c.attempts {
		return false
	}
	e.until = now.Add(c.duration)
	return true
}

// succeeded forgets what was wrong before.
func (l *lockouts) succeeded(user ID, address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := lockoutKey{user, address}
	if e := l.entries[key]; e != nil {
		delete(l.entries, key) // its place in the order is found empty later
		l.order[e.slot] = lockoutKey{}
	}
}

// add makes an entry, in place of the oldest where there are too many.
func (l *lockouts) add(key lockoutKey) *lockoutEntry {
	e := &lockoutEntry{slot: l.next}
	if len(l.order) < maxLockouts {
		e.slot = len(l.order)
		l.order = append(l.order, key)
	} else {
		if old := l.order[l.next]; old != (lockoutKey{}) {
			delete(l.entries, old)
		}
		l.order[l.next] = key
		l.next = (l.next + 1) % maxLockouts
	}
	l.entries[key] = e
	return e
}
