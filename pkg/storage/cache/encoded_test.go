package cache

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func newEvent(account *encodings) *Event[string] {
	return &Event[string]{encodings: account, encoded: &encoded{}}
}

// One encoding per name serves all concurrent callers.
func TestEncodedOnce(t *testing.T) {
	event := newEvent(&encodings{})
	var calls [3]atomic.Int64
	var asking sync.WaitGroup
	for i := range 300 {
		asking.Go(func() {
			id := i % len(calls)
			data, err := event.Encoded(fmt.Sprint(id), func(w io.Writer) error {
				calls[id].Add(1)
				_, err := fmt.Fprintf(w, "form %d", id)
				return err
			})
			if want := fmt.Sprintf("form %d", id); err != nil || string(data) != want {
				t.Errorf("got %q, %v, want %q", data, err, want)
			}
		})
	}
	asking.Wait()
	for id := range calls {
		if n := calls[id].Load(); n != 1 {
			t.Errorf("form %d was encoded %d times", id, n)
		}
	}
}

// A failure is returned and not kept.
func TestEncodedFails(t *testing.T) {
	event, broken := newEvent(&encodings{}), errors.New("broken")
	if _, err := event.Encoded("a", func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	data, err := event.Encoded("a", func(w io.Writer) error { _, err := io.WriteString(w, "good"); return err })
	if string(data) != "good" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
}

// keptBytes is what the events really hold.
func keptBytes(events []*Event[string]) (total int) {
	for _, event := range events {
		event.encoded.mu.Lock()
		for _, data := range event.encoded.forms {
			total += cap(data)
		}
		event.encoded.mu.Unlock()
	}
	return total
}

// However many events are encoded concurrently, the encodings kept stay within the bound, no
// caller blocks forever, and every caller gets the right bytes.
func TestEncodedIsBounded(t *testing.T) {
	account := &encodings{}
	events := make([]*Event[string], 300)
	for i := range events {
		events[i] = newEvent(account)
	}
	const size = 100 << 10 // 300 of them are more than the bound
	var asking sync.WaitGroup
	for worker := range 6 {
		asking.Go(func() {
			for i, event := range events {
				id := fmt.Sprint((worker + i) % 2)
				letter := string(rune('a' + i%26))
				data, err := event.Encoded(id, func(w io.Writer) error {
					_, err := io.WriteString(w, strings.Repeat(letter, size))
					return err
				})
				if err != nil || len(data) != size || data[0] != letter[0] || data[size-1] != letter[0] {
					t.Errorf("event %d: %d bytes, %v", i, len(data), err)
				}
			}
		})
	}
	asking.Wait()
	if kept := keptBytes(events); kept == 0 || kept > account.bytes || account.bytes > maxEncodedBytes {
		t.Errorf("%d bytes are kept, %d accounted for, the bound is %d", kept, account.bytes, maxEncodedBytes)
	}
}

// An encoding that is larger than the bound by itself is shared, and the next one replaces
// it.
func TestEncodedLargerThanTheBound(t *testing.T) {
	account := &encodings{}
	events := []*Event[string]{newEvent(account), newEvent(account)}
	large := strings.Repeat("x", maxEncodedBytes+1)
	for _, event := range events {
		data, err := event.Encoded("a", func(w io.Writer) error { _, err := io.WriteString(w, large); return err })
		if len(data) != len(large) || err != nil {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	if keptBytes(events[:1]) != 0 || keptBytes(events[1:]) == 0 {
		t.Error("want the newest encoding alone to be kept")
	}
}

// The account of encodings keeps no event, and with it no object, from being freed.
func TestEncodingsKeepNoEvents(t *testing.T) {
	account, freed := &encodings{}, make(chan struct{})
	func() {
		event := newEvent(account)
		if _, err := event.Encoded("a", func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(event, func(c chan struct{}) { close(c) }, freed)
	}()
	eventually(t, "the event is freed", func() bool {
		runtime.GC()
		select {
		case <-freed:
			return true
		default:
			return false
		}
	})
	if account.bytes == 0 {
		t.Error("the encoding was not taken into the account")
	}
}
