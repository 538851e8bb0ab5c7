package registry

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// reading is a read that takes some time and so many bytes.
func reading(count *int, bytes int64) func(int64) (*page, int64, error) {
	return func(int64) (*page, int64, error) {
		*count++
		<-time.After(time.Second)
		return &page{}, bytes, nil
	}
}

// Those who ask for the same page at the same time share it, until the last has written it.
func TestExactPagesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, reads := newExactReads(), 0
		var asking sync.WaitGroup
		pages := make([]*page, 60)
		for i := range pages {
			asking.Go(func() {
				var err error
				if pages[i], err = e.get(t.Context(), exactKey{revision: 5}, reading(&reads, maxExactList)); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if reads != 1 || e.bytes() != maxExactList {
			t.Errorf("%d reads, %v bytes", reads, e.bytes())
		}
		for i, p := range pages {
			if e.bytes() == 0 {
				t.Fatalf("the memory is given back before the %dth is released", i)
			}
			p.release()
			p.release() // twice is harmless
		}
		if e.bytes() != 0 || len(e.reads) != 0 {
			t.Errorf("%v bytes of %d reads are kept", e.bytes(), len(e.reads))
		}
	})
}

// Different pages wait for memory, which what was read keeps, and no longer than they may.
func TestExactPagesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, reads := newExactReads(), 0
		var held []*page
		get := func(revision int64) (*page, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return e.get(ctx, exactKey{revision: revision}, reading(&reads, maxExactList))
		}
		for revision := range int64(maxExactBytes / maxExactList) {
			p, err := get(revision + 1)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, p)
		}
		begin := time.Now()
		if _, err := get(100); !apierrors.IsTooManyRequests(err) || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %v, want 429 after a minute", time.Since(begin), err)
		}
		if seconds, ok := apierrors.SuggestsClientDelay(errExactBusy); !ok || seconds != 1 {
			t.Error("it is not told when to try again")
		}
		time.AfterFunc(10*time.Second, held[0].release)
		p, err := get(100)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range append(held[1:], p) {
			p.release()
		}
		if e.bytes() != 0 || len(e.reads) != 0 {
			t.Errorf("%v bytes of %d reads are kept", e.bytes(), len(e.reads))
		}
	})
}

// Where the one who reads for others runs out of time, another reads.
func TestExactReaderIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, reads := newExactReads(), 0
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var asking sync.WaitGroup
		defer asking.Wait()
		asking.Go(func() {
			_, err := e.get(impatient, exactKey{}, func(int64) (*page, int64, error) {
				<-impatient.Done()
				return nil, 0, apierrors.NewTimeoutError("late", 1)
			})
			if err == nil {
				t.Error("no error")
			}
		})
		synctest.Wait()
		for range 3 {
			asking.Go(func() {
				p, err := e.get(t.Context(), exactKey{}, reading(&reads, 1))
				if err != nil {
					t.Error(err)
					return
				}
				p.release()
			})
		}
		asking.Wait()
		if reads != 1 || e.bytes() != 0 {
			t.Errorf("%d reads, %v bytes are kept", reads, e.bytes())
		}
	})
}

// A read that panics gives its memory back, and the others who wait for it are told.
func TestExactReadPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExactReads()
		get := func(read func(int64) (*page, int64, error)) (err error) {
			defer func() {
				if cause := recover(); cause != nil {
					err = fmt.Errorf("panicked: %v", cause)
				}
			}()
			_, err = e.get(t.Context(), exactKey{revision: 5}, read)
			return err
		}
		var asking sync.WaitGroup
		for range 2 {
			asking.Go(func() {
				if err := get(func(int64) (*page, int64, error) {
					<-time.After(time.Second)
					panic("oh dear")
				}); err == nil {
					t.Error("no error")
				}
			})
		}
		asking.Wait()
		if e.bytes() != 0 || len(e.reads) != 0 {
			t.Errorf("%v bytes of %d reads are kept", e.bytes(), len(e.reads))
		}
		if !e.memory.TryAcquire(maxExactBytes) {
			t.Error("memory is lost")
		}
	})
}
