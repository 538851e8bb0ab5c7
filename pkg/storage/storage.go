// Package storage is the contract between the registry and whatever keeps its
// bytes. It knows keys, values and revisions and nothing of objects.
//
// A revision is etcd's: one counter for the whole store, raised by one by every
// transaction that writes. A key's ModRevision is the revision of its latest write.
package storage

import (
	"context"
	"errors"
	"fmt"
)

// KeyValue is one key as it stood at some revision.
type KeyValue struct {
	Key            string
	Value          []byte // never changed afterwards: the store does not, and readers may share it
	CreateRevision int64  // of the write that made the key
	ModRevision    int64  // of the latest write
}

// Guard is a condition of a write on a key that the write does not touch: Key must
// exist with exactly this ModRevision when the write commits.
type Guard struct {
	Key         string
	ModRevision int64
}

// GetOptions says which state Get reads.
type GetOptions struct {
	// Revision reads the state of that revision; 0 reads the newest, linearizably.
	Revision int64
}

// GetResponse is what Get found.
type GetResponse struct {
	KV       *KeyValue // nil where the key does not exist
	Revision int64     // the store's revision when it answered
}

// ListOptions says which part of a prefix List reads, and at which state.
type ListOptions struct {
	Revision int64  // as in GetOptions
	Limit    int64  // at most so many keys; 0 is no limit
	From     string // the first key to return, inclusive; empty is the prefix's first
}

// ListResponse is a part of a prefix, in the order of the keys.
type ListResponse struct {
	KVs      []*KeyValue
	More     bool  // keys of the prefix follow the last one returned
	Count    int64 // all keys of the prefix from From on, returned or not
	Revision int64 // the revision of the snapshot that was read
}

// PutOptions are the conditions of a Put.
type PutOptions struct {
	// Expect is the ModRevision that the key must have; 0: the key must not exist.
	Expect int64
	// Guard is a further condition; nil is none.
	Guard *Guard
	// DryRun checks the size and every condition, as the write would, and writes nothing.
	// The response tells what the write would have met; Revision is the store's.
	DryRun bool
}

// DeleteOptions are the conditions of a Delete.
type DeleteOptions struct {
	// Expect is the ModRevision that the key must have; it is never 0.
	Expect int64
	// DryRun checks the condition and deletes nothing, as in PutOptions.
	DryRun bool
}

// WriteResponse says what became of a conditional write.
type WriteResponse struct {
	// Succeeded is true where every condition held and the write is committed.
	Succeeded bool
	// Revision is the write's revision; where it failed, the store's.
	Revision int64
	// Current is the key as it stands where the write failed; nil: it does not exist.
	Current *KeyValue
	// Guarded is the guard's key as it stands where the write failed and a guard was
	// given; nil: it does not exist.
	Guarded *KeyValue
}

// Event is one change of one key.
type Event struct {
	// KV is the key after the change. Of a deletion it carries the key and, as
	// ModRevision, the revision of the deletion; its value is nil.
	KV *KeyValue
	// Prev is the key before the change, in what History returns; nil where the change
	// made it. A watch leaves it nil.
	Prev *KeyValue
	// Deleted is true where the change removed the key.
	Deleted bool
}

// WatchOptions says where a watch begins.
type WatchOptions struct {
	// Revision is the last revision the caller has seen: the first event is the first
	// one after it. 0 begins with what is written from now on.
	Revision int64
	// Progress is where the caller asks for a progress report: for each value received the
	// watch reports its progress soon if it is up to date; one that is behind may report
	// nothing. nil: only the store decides when to report. It need not be closed.
	Progress <-chan struct{}
}

// WatchResponse carries all events of one or more whole revisions, in order, or a
// progress report (no events), or the error that ended the watch.
type WatchResponse struct {
	Events []Event
	// Revision: every event up to and including it has been delivered.
	Revision int64
	// Err ends the watch: ErrCompacted, ErrMissedEvents, ErrUnavailable or a wrapped cause.
	// The channel is closed after it.
	Err error
}

// Interface stores bytes under keys. Its methods may be called at the same time from
// any number of goroutines. Each of them returns at the latest when its context ends
// or its own deadline passes. The errors are those of this package, wrapped.
type Interface interface {
	// Get reads one key.
	Get(ctx context.Context, key string, opts GetOptions) (GetResponse, error)

	// List reads the keys that begin with prefix from one snapshot.
	List(ctx context.Context, prefix string, opts ListOptions) (ListResponse, error)

	// Put writes the key in one transaction if the conditions hold. A condition that does
	// not hold is no error: the response carries the current state. After ErrUnknownOutcome
	// the write may or may not be committed, now or soon: read again before retrying.
	Put(ctx context.Context, key string, value []byte, opts PutOptions) (WriteResponse, error)

	// Delete removes the key in one transaction if the condition holds, as Put writes it.
	Delete(ctx context.Context, key string, opts DeleteOptions) (WriteResponse, error)

	// Watch delivers the changes of all keys that begin with prefix, in order, without a
	// gap, each once, the events of one revision never split. It never blocks the store:
	// a reader that stops reading only fills its own stream. The channel is closed when
	// ctx ends, or after a response with Err.
	Watch(ctx context.Context, prefix string, opts WatchOptions) <-chan WatchResponse

	// History returns the changes, with Prev, of the keys that begin with prefix after the
	// revision after and up to upTo, oldest first. ErrCompacted: they are not all there any
	// more.
	History(ctx context.Context, prefix string, after, upTo int64) ([]Event, error)

	// Revision returns the newest revision, linearizably.
	Revision(ctx context.Context) (int64, error)
}

var (
	// ErrCompacted: the revision asked for is older than the store keeps.
	ErrCompacted = errors.New("the requested revision has been compacted")
	// ErrFutureRevision: the revision asked for is newer than the store's.
	ErrFutureRevision = errors.New("the requested revision is not there yet")
	// ErrMissedEvents: the store delivered an event after it had reported that all events up
	// to a later revision were delivered. There may be more of them, so the watch must not go
	// on from its last revision: read the state again.
	ErrMissedEvents = errors.New("the watch has missed events")
	// ErrUnavailable: the store did not answer, and nothing was written. It comes with the
	// context's own error where that had ended before the store was asked.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrTimeout: the deadline passed before a read was answered.
	ErrTimeout = errors.New("the store did not answer in time")
	// ErrUnknownOutcome: the connection or the deadline ended while a write was under way.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
	// ErrNoSpace: the store's database is full; deleting still works.
	ErrNoSpace = errors.New("the store's database is full")
)

// TooLargeError says that a value exceeds what the store takes in one request.
type TooLargeError struct {
	Size  int // bytes
	Limit int // bytes; 0 where the store refused the value without naming its limit
}

func (e *TooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("the value has %d bytes, more than the store takes in one request", e.Size)
	}
	return fmt.Sprintf("the value has %d bytes, the limit is %d", e.Size, e.Limit)
}
