package harness

import (
	"bytes"
	"regexp"
	"sync"
	"testing"
	"time"
)

// awaitTimeout is far more than anything that is awaited takes on a machine under load.
const awaitTimeout = 30 * time.Second

// Output collects what a server or a logger writes, and wakes whoever waits for more of it.
// The zero Output is empty. It may be used by several goroutines at once.
type Output struct {
	mu   sync.Mutex
	data bytes.Buffer
	more chan struct{} // closed and forgotten by the next Write; nil while nobody waits
}

// Write appends what is written.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.data.Write(p)
}

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// written returns a channel that is closed at the next Write.
func (o *Output) written() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.more
}

// Await waits until the pattern is in the output, and returns its last group. The test fails
// where ended is closed first; nil never is.
func (o *Output) Await(t testing.TB, pattern string, ended <-chan struct{}) string {
	t.Helper()
	compiled := regexp.MustCompile(pattern)
	deadline := time.After(awaitTimeout)
	for {
		written := o.written()
		if found := compiled.FindStringSubmatch(o.String()); found != nil {
			return found[len(found)-1]
		}
		select {
		case <-written:
		case <-ended:
			t.Fatalf("the end came before %q was written:\n%s", pattern, o)
		case <-deadline:
			t.Fatalf("%q was not written in time:\n%s", pattern, o)
		}
	}
}
