// Package storage is the contract between the registry and its store. It deals in keys,
// values and revisions, and knows nothing of objects.
//
// A revision is etcd's: one counter for the whole store, incremented by every transaction
// that writes. A key's ModRevision is the revision of its latest write.
package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KeyValue is a key at some revision.
type KeyValue struct {
	Key            string
	Value          []byte // immutable: the store does not change it, and readers may share it
	CreateRevision int64  // of the write that created the key
	ModRevision    int64  // of the latest write
}

// Guard is a condition on a key other than the one written: Key must exist with exactly
// this ModRevision when the write commits.
type Guard struct {
	Key         string
	ModRevision int64
}

// Also is what a transaction requires and does besides the write that it is for. Its keys are not
// that write's.
type Also struct {
	Conditions []Condition
	Writes     []Write // of different keys
}

// Condition holds if the key's ModRevision, which is 0 while it does not exist, is neither below
// Min nor above Max when the write commits.
type Condition struct {
	Key      string
	Min, Max int64
}

// Write is a write of one key, whatever it holds.
type Write struct {
	Key    string
	Value  []byte
	Delete bool // deletes the key, if it exists, rather than to put Value
}

// GetOptions selects the state that Get reads.
type GetOptions struct {
	// Revision reads the state at that revision; 0 reads the latest, linearizably.
	Revision int64
}

// GetResponse is the result of a Get.
type GetResponse struct {
	KV       *KeyValue // nil if the key does not exist
	Revision int64     // the store's revision when it answered
}

// ListOptions selects the part of a prefix that List reads, and the state.
type ListOptions struct {
	Revision int64  // as in GetOptions
	Limit    int64  // maximum number of keys; 0 means no limit
	From     string // the first key to return, inclusive; empty means the prefix's first
}

// ListResponse is a part of a prefix, sorted by key.
type ListResponse struct {
	KVs      []*KeyValue
	More     bool  // more keys of the prefix follow the last one returned
	Count    int64 // number of keys of the prefix from From on, returned or not
	Revision int64 // the revision of the snapshot that was read
}

// PutOptions are the conditions of a Put.
type PutOptions struct {
	// Expect is the ModRevision that the key must have; 0 means it must not exist.
	Expect int64
	// Guard is a further condition; nil means none.
	Guard *Guard
	// Also is the rest of the transaction; the zero value is nothing.
	Also Also
	// TTL is how long the key lives after this write, at least, unless another one comes; the
	// store deletes it within a minute after that. 0: it stays.
	TTL time.Duration
	// Reserve is what the write may use of the room that is kept free; 0 means nothing.
	Reserve Reserve
	// DryRun checks the size and every condition like the write would, and writes
	// nothing. The response is the write's, except that Revision is the store's.
	DryRun bool
}

// Reserve names the room that the store keeps free for writes that lead to more room.
type Reserve int

const (
	// NoReserve is for a write that adds to what is stored.
	NoReserve Reserve = iota
	// ForShrinking lets a write that adds nothing use the last part of the database.
	ForShrinking
	// ForDeletion lets a write of an object that is being deleted use, besides, the last
	// bytes of the largest value: the marks of a deletion make the value larger.
	ForDeletion
)

// DeleteOptions are the conditions of a Delete.
type DeleteOptions struct {
	// Expect is the ModRevision that the key must have; it is never 0.
	Expect int64
	// Also is the rest of the transaction; the zero value is nothing.
	Also Also
	// DryRun checks the condition and deletes nothing, as in PutOptions.
	DryRun bool
}

// WriteResponse is the result of a conditional write.
type WriteResponse struct {
	// Succeeded is true if every condition held and the write is committed.
	Succeeded bool
	// Revision is the write's revision, or the store's if the write failed.
	Revision int64
	// Current is the key's current state if the write failed; nil if it does not exist. It may be
	// as expected, if a condition of Also failed.
	Current *KeyValue
	// Guarded is the current state of the guard's key if the write failed and had a
	// guard; nil if it does not exist.
	Guarded *KeyValue
}

// Event is a change of one key.
type Event struct {
	// KV is the key after the change. For a deletion it has the key, the revision of the
	// deletion as ModRevision, and a nil value.
	KV *KeyValue
	// Prev is the key before the change, nil if the change created it. It is only set by
	// History; a watch leaves it nil.
	Prev *KeyValue
	// Deleted is true if the change deleted the key.
	Deleted bool
}

// WatchOptions selects where a watch begins.
type WatchOptions struct {
	// Revision is the last revision the caller has seen: the watch begins with the first
	// event after it.
	Revision int64
	// Progress receives requests for a progress report: for each one the watch reports its
	// progress soon if it is up to date, and possibly nothing if it is behind. If nil, the
	// store alone decides when to report. It need not be closed.
	Progress <-chan struct{}
}

// WatchResponse contains all events of one or more whole revisions, in order, or a
// progress report (no events), or the error that ended the watch.
type WatchResponse struct {
	Events []Event
	// Revision is the one up to which every event has been delivered.
	Revision int64
	// Err ends the watch: ErrCompacted, ErrMissedEvents, ErrUnavailable or a wrapped cause.
	// The channel is closed after it.
	Err error
}

// Interface stores bytes under keys. Its methods are safe for concurrent use. Each of
// them returns at the latest when its context ends or its own deadline passes. Errors
// wrap those of this package.
type Interface interface {
	// Get reads one key.
	Get(ctx context.Context, key string, opts GetOptions) (GetResponse, error)

	// List reads the keys with the prefix from one snapshot.
	List(ctx context.Context, prefix string, opts ListOptions) (ListResponse, error)

	// Put writes the key in one transaction if the conditions hold. A failed condition is
	// not an error: the response has the current state. After ErrUnknownOutcome the write
	// may be committed, now or soon: read again before retrying.
	Put(ctx context.Context, key string, value []byte, opts PutOptions) (WriteResponse, error)

	// Delete deletes the key in one transaction if the condition holds, as in Put.
	Delete(ctx context.Context, key string, opts DeleteOptions) (WriteResponse, error)

	// Watch delivers the changes of all keys with the prefix: in order, without gaps, each
	// once, and never splitting the events of a revision. It never blocks the store: a
	// reader that stops reading only fills its own stream. The channel is closed when ctx
	// ends, or after a response with Err.
	Watch(ctx context.Context, prefix string, opts WatchOptions) <-chan WatchResponse

	// History returns the changes, with Prev, of the keys with the prefix after the
	// revision after and up to upTo, oldest first. It returns ErrCompacted if they are no
	// longer all available, and ErrTooMuch if their values take more than maxBytes.
	History(ctx context.Context, prefix string, after, upTo int64, maxBytes int) ([]Event, error)

	// Revision returns the latest revision, linearizably.
	Revision(ctx context.Context) (int64, error)

	// Replaced returns a channel that is closed once the store turns out not to be the one, or to
	// have lost some of the writes, that it had when Replaced was called: another one answers, or
	// one that was restored. What was read before is not its past then. The channel is closed
	// before a response that tells so is returned; nil: the store is never replaced.
	Replaced() <-chan struct{}
}

var (
	// ErrCompacted: the requested revision is older than what the store keeps.
	ErrCompacted = errors.New("the requested revision has been compacted")
	// ErrFutureRevision: the requested revision is newer than the store's.
	ErrFutureRevision = errors.New("the requested revision is not there yet")
	// ErrMissedEvents: the store delivered an event after reporting that all events up to a
	// later revision were delivered. There may be more of them, so do not resume the watch
	// from its last revision: read the state again.
	ErrMissedEvents = errors.New("the watch has missed events")
	// ErrReplaced: the store is another one than before, or was restored to an older state.
	ErrReplaced = errors.New("the store was replaced or restored")
	// ErrUnavailable: the store did not answer, and nothing was written. It wraps the
	// context's error if that had ended before the store was asked.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrTimeout: the deadline passed before a read was answered.
	ErrTimeout = errors.New("the store did not answer in time")
	// ErrUnknownOutcome: the connection or the deadline ended during a write.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
	// ErrNoSpace: the store's database is full: nothing is written, keys can be deleted.
	ErrNoSpace = errors.New("the store's database is full")
	// ErrTooManyWrites: the transaction has more conditions or writes than the store takes in one.
	ErrTooManyWrites = errors.New("too many writes in one transaction")
	// ErrTooMuch: what was asked for takes more memory than the caller has for it.
	ErrTooMuch = errors.New("the answer is too large")
)

// NearlyFullError reports that the database has no room left for a write that adds to it.
// Nothing was written.
type NearlyFullError struct {
	InUse, Limit, Quota int64 // bytes in use, from which on it has no such room, and in all
}

func (e *NearlyFullError) Error() string {
	return fmt.Sprintf("the store's database uses %d bytes of %d, and takes nothing more from %d on", e.InUse, e.Quota, e.Limit)
}

// TooLargeError reports that a value exceeds what the store accepts in one request.
type TooLargeError struct {
	Size  int // bytes
	Limit int // bytes; 0 if the store rejected the value without naming its limit
	// Others is how many writes the transaction has besides the one that it is for. Size counts them.
	Others int
}

func (e *TooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("the value has %d bytes, more than the store takes in one request", e.Size)
	}
	return fmt.Sprintf("the value has %d bytes, the limit is %d", e.Size, e.Limit)
}
