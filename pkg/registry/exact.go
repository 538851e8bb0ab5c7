package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/storage"
)

const (
	// maxExactBytes bounds the memory of the old versions in all lists of exact revisions that
	// are being read or written, in bytes. Versions that the cache has, too, do not count.
	maxExactBytes = 128 << 20
	// maxExactList bounds those of one list without a limit.
	maxExactList = 64 << 20
	// maxExactPage ends a page of a list with a limit, beyond the first object.
	maxExactPage = 16 << 20
)

// maxOld returns what the old versions may take in a list with the limit, in bytes; 0 or less: it
// has none.
func maxOld(limit int64) int64 {
	if limit > 0 {
		return maxExactPage
	}
	return maxExactList
}

// exactReads are the pages of exact revisions that are being read or in use. Those who ask
// for the same page share it, and the others wait until there is memory for theirs.
type exactReads struct {
	memory *semaphore.Weighted // of maxExactBytes; a read takes the most that it may need
	taken  atomic.Int64        // of memory

	mu    sync.Mutex
	reads map[exactKey]*exactRead
}

type exactKey struct {
	prefix, from, labels, fields string
	revision, limit              int64
}

type exactRead struct {
	done chan struct{} // closed when it is read
	page *page
	err  error
	// users and held are guarded by exactReads.mu.
	users int
	held  int64 // of memory
}

func newExactReads() *exactReads {
	return &exactReads{memory: semaphore.NewWeighted(maxExactBytes), reads: map[exactKey]*exactRead{}}
}

// get returns the page that read makes, or that another reads at the moment or has in use.
// The page's release must be called once it is not used any more.
func (e *exactReads) get(ctx context.Context, key exactKey, read func(maxBytes int64) (*page, int64, error)) (*page, error) {
	for {
		e.mu.Lock()
		r := e.reads[key]
		first := r == nil
		if first {
			r = &exactRead{done: make(chan struct{})}
			e.reads[key] = r
		}
		r.users++
		e.mu.Unlock()
		if first {
			e.fill(ctx, key, r, read)
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			e.leave(key, r)
			return nil, errExactBusy
		}
		if r.err == nil {
			shared := *r.page
			shared.release = sync.OnceFunc(func() { e.leave(key, r) })
			return &shared, nil
		}
		e.leave(key, r)
		if first || ctx.Err() != nil || !errors.Is(r.err, errReaderGone) {
			return nil, r.err
		}
	}
}

// errReaderGone ends a read whose reader's time is up: the others read again.
var errReaderGone = errors.New("the reader is gone")

// errReadPanicked is what the others are told who wait for a read that panics.
var errReadPanicked = errors.New("reading a page of an exact version panicked")

var errExactBusy = apierrors.NewTooManyRequests("lists of old versions take all the memory that they may at the moment: try again later, ask for pages (limit), or for the newest version (without resourceVersion)", 1)

// fill reads the page of r. If the read panics, r has its memory back and an error.
func (e *exactReads) fill(ctx context.Context, key exactKey, r *exactRead, read func(maxBytes int64) (*page, int64, error)) {
	most := maxOld(key.limit)
	defer close(r.done)
	var page *page
	held := int64(0)
	err := error(errExactBusy)
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errReaderGone, err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if r.page, r.err, r.held = page, err, held; err != nil {
			delete(e.reads, key) // whoever comes now reads again
		}
	}()
	if e.acquire(ctx, most) != nil {
		return
	}
	defer func() {
		held = min(held, most)
		e.release(most - held)
	}()
	if ctx.Err() == nil { // a turn that comes with the end of its time is too late
		err = errReadPanicked
		page, held, err = read(most)
	}
}

// bytes returns how much of maxExactBytes is taken.
func (e *exactReads) bytes() float64 { return float64(e.taken.Load()) }

func (e *exactReads) acquire(ctx context.Context, bytes int64) error {
	err := e.memory.Acquire(ctx, bytes)
	if err == nil {
		e.taken.Add(bytes)
	}
	return err
}

func (e *exactReads) release(bytes int64) {
	e.taken.Add(-bytes)
	e.memory.Release(bytes)
}

// leave gives up the use of a page. The last to leave gives its memory back.
func (e *exactReads) leave(key exactKey, r *exactRead) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.users--; r.users > 0 {
		return
	}
	if e.reads[key] == r {
		delete(e.reads, key)
	}
	e.release(r.held)
}

// pageAt is a page of the state of an exact revision, which only the store knows. Whoever
// uses it must release it.
func (s *Store) pageAt(ctx context.Context, selection *selection, limit, revision int64, from string) (*page, error) {
	key := exactKey{
		prefix: selection.prefix, from: from, labels: selection.labels.String(), fields: selection.fields.String(),
		revision: revision, limit: max(limit, 0),
	}
	return s.exact.get(ctx, key, func(maxBytes int64) (*page, int64, error) {
		return s.readPageAt(ctx, selection, key, maxBytes)
	})
}

// readPageAt reads a page, of which versions that the cache does not have may take maxBytes,
// and returns how many bytes they do.
func (s *Store) readPageAt(ctx context.Context, selection *selection, key exactKey, maxBytes int64) (*page, int64, error) {
	p := &page{selection: selection, limit: key.limit, continued: key.from != ""}
	read := storage.ListOptions{Revision: key.revision, From: key.from}
	if key.limit > 0 && selection.all() {
		read.Limit = key.limit + 1
	}
	used := int64(0)
	for part, err := range storage.Pages(ctx, s.storage, selection.prefix, read) {
		if err != nil {
			return nil, 0, s.exactError(ctx, err, key.revision)
		}
		p.revision = part.Revision
		for i, kv := range part.KVs {
			v, before := s.cached(kv), len(p.objects)
			old := !v.exists()
			if old {
				v = s.readValue(kv)
			}
			if !p.add(v) {
				p.remaining = part.Count - int64(i)
				return p, used, nil
			}
			if old && len(p.objects) > before {
				used += int64(v.size())
			}
			switch {
			case used <= maxBytes:
			case key.limit == 0:
				return nil, 0, apierrors.NewBadRequest(fmt.Sprintf("at resourceVersion %d the list has more than %d bytes of old versions: ask for it in pages (limit), or for a newer version", p.revision, maxBytes))
			default:
				p.limit = int64(len(p.objects)) // the next one is another page's
			}
		}
	}
	return p, used, nil
}

// exactError is what a client is told of a failure to read at the revision.
func (s *Store) exactError(ctx context.Context, err error, revision int64) error {
	switch {
	case errors.Is(err, storage.ErrFutureRevision):
		current, revisionErr := s.storage.Revision(ctx)
		if revisionErr != nil {
			return apierr.FromStorage(revisionErr)
		}
		return apierr.TooLargeVersion(revision, current)
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	return apierr.FromStorage(err)
}
