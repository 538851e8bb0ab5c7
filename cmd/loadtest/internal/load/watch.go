package load

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

const (
	// watchTimeout is how long a server is asked to keep a watch open; then it is reopened.
	watchTimeout = 30 * time.Minute
	// opening is how many watches are opened at the same time.
	opening = 32
	// firstPause and longestPause bound the wait before a watch is reopened after one that
	// brought nothing.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// eventHead is how much of an event is parsed, in bytes; the rest is skipped.
	eventHead = 16 << 10
	// maxEvent bounds an event whose head is not enough, in bytes.
	maxEvent = 32 << 20
)

// errExpired means that the server no longer knows the version to resume a watch from.
var errExpired = errors.New("the resourceVersion has expired")

// watchers are the streams that stay open during a run. Each belongs to a goroutine that
// reopens it when it has ended.
type watchers struct {
	count    int
	client   *client.Client
	http     *http.Client
	workload *workload
	sent     *sendTimes
	gzip     bool
	protobuf bool

	attack  atomic.Pointer[attack] // whose events are counted; nil: none
	slots   chan struct{}          // full while opening watches are being opened
	stop    context.CancelFunc
	giveUp  context.CancelCauseFunc // ends the wait for the first opening
	running sync.WaitGroup

	mu     sync.Mutex
	opened int
	last   error         // of a watch that could not be opened
	all    chan struct{} // closed when each watch has been open once
}

// startWatchers opens the watches and returns when all are open. It fails if that takes
// longer than setupTimeout or is refused with a status that waiting does not change. The
// watches last until close is called.
func startWatchers(ctx context.Context, c *Config, cl *client.Client, w *workload, sent *sendTimes) (*watchers, error) {
	transport := cl.Transport(0)
	transport.ResponseHeaderTimeout = c.Timeout
	limit, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	limit, giveUp := context.WithCancelCause(limit)
	defer giveUp(nil)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ws := &watchers{
		count: c.Watchers, client: cl, http: &http.Client{Transport: transport}, workload: w, sent: sent,
		gzip: c.WatchGzip, protobuf: c.Protobuf, slots: make(chan struct{}, opening), stop: stop, giveUp: giveUp, all: make(chan struct{}),
	}
	versions := make([]string, min(len(w.paths), ws.count))
	for i := range versions {
		var err error
		if versions[i], err = ws.currentVersion(limit, i); err != nil {
			stop()
			return nil, err
		}
	}
	for i := range ws.count {
		namespace := i % len(w.paths)
		each := &watcher{watchers: ws, token: i % cl.Tokens.Size(), namespace: namespace, version: versions[namespace]}
		ws.running.Go(func() { each.run(running) })
	}
	select {
	case <-ws.all:
		return ws, nil
	case <-limit.Done():
	}
	ws.close()
	err := context.Cause(limit)
	if ws.last != nil {
		err = ws.last
	}
	return nil, fmt.Errorf("only %d of %d watches could be opened: %w", ws.opened, ws.count, err)
}

// close ends all watches and waits for them.
func (ws *watchers) close() {
	ws.stop()
	ws.running.Wait()
	ws.http.CloseIdleConnections()
}

// measure counts events for an attack until the function that it returns is called.
func (ws *watchers) measure(a *attack) (end func()) {
	ws.attack.Store(a)
	return func() { ws.attack.Store(nil) }
}

// in returns how many watches there are of a namespace.
func (ws *watchers) in(namespace int) int {
	all := len(ws.workload.paths)
	return (ws.count + all - 1 - namespace) / all
}

// awaitEvents waits until the watchers have seen all successful writes, at most for limit.
func (ws *watchers) awaitEvents(ctx context.Context, s *report.Stats, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.EventsMissing() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// currentVersion returns the version of a namespace's current state, to watch from. It asks for an
// empty list, however large the objects are.
func (ws *watchers) currentVersion(ctx context.Context, namespace int) (string, error) {
	body, err := ws.client.Call(ctx, http.MethodGet, ws.workload.paths[namespace]+"?fieldSelector=metadata.name%3Dnone&limit=1", nil)
	if err != nil {
		return "", err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(body, &list); err != nil || list.Metadata.ResourceVersion == "" {
		return "", errors.New("the list of Endpoints has no resourceVersion to watch from")
	}
	return list.Metadata.ResourceVersion, nil
}

// open counts a watch that is open for the first time.
func (ws *watchers) open() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.opened++; ws.opened == ws.count {
		close(ws.all)
	}
}

// failed counts a watch that broke or could not be opened.
func (ws *watchers) failed(err error) {
	fault, ok := errors.AsType[*client.Fault](err)
	if !ok {
		fault = ws.client.Broken(err)
	}
	ws.mu.Lock()
	ws.last = fault
	ws.mu.Unlock()
	if c := fault.Code; c >= 400 && c < 500 && c != http.StatusTooManyRequests {
		ws.giveUp(fault)
	}
	ws.tally(func(s *report.Stats) { s.AddWatchFault(report.Fault{Kind: fault.Kind, Message: fault.Message}) })
}

// tally lets add change the statistics of the load that is running, if there is one.
func (ws *watchers) tally(add func(*report.Stats)) {
	if a := ws.attack.Load(); a != nil {
		add(a.stats)
	}
}

// watcher keeps one watch open. It belongs to one goroutine.
type watcher struct {
	*watchers
	token      int
	namespace  int           // its index
	version    string        // of the last event
	opened     bool          // at least once
	fruitful   bool          // the last stream brought something
	retryAfter time.Duration // the wait that the server asked for when it refused
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		w.fruitful, w.retryAfter = false, 0
		err := w.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errExpired) {
			w.tally((*report.Stats).AddExpired)
			var version string
			if version, err = w.currentVersion(ctx, w.namespace); err == nil {
				w.version = version
			}
		}
		if err != nil {
			w.failed(err)
		}
		if w.fruitful {
			pause = firstPause
		}
		if !client.Wait(ctx, max(pause, w.retryAfter)) {
			return
		}
	}
}

// stream opens the watch and reads it until it ends. It is not an error that the server ends
// it properly.
func (w *watcher) stream(ctx context.Context) error {
	resp, err := w.request(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.Reader(&countedReader{resp.Body, w.watchers})
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	from := bufio.NewReaderSize(body, eventHead)
	if !w.protobuf {
		return w.read(func() (event, error) { return readEvent(from) })
	}
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, protobufType) {
		return fmt.Errorf("the watch is not in protobuf: its Content-Type is %q", got)
	}
	var buffer []byte
	return w.read(func() (e event, err error) {
		e, buffer, err = readFrame(from, buffer)
		return e, err
	})
}

// request opens the watch, as one of a few at a time.
func (w *watcher) request(ctx context.Context) (*http.Response, error) {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	query := url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {w.version},
		"timeoutSeconds": {fmt.Sprint(int(watchTimeout.Seconds()))},
	}
	req, err := w.client.Request(ctx, http.MethodGet, w.workload.paths[w.namespace]+"?"+query.Encode(), nil, w.token)
	if err != nil {
		return nil, err
	}
	if w.protobuf {
		req.Header.Set("Accept", protobufType)
	}
	if w.gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusGone:
		resp.Body.Close()
		return nil, errExpired
	case resp.StatusCode != http.StatusOK:
		defer resp.Body.Close()
		w.retryAfter = client.RetryAfter(resp.Header, time.Now())
		return nil, w.client.Refused(resp, w.token)
	case w.opened:
		w.tally((*report.Stats).AddReopened)
	default:
		w.opened = true
		w.open()
	}
	return resp, nil
}

// read takes events from next until the stream ends.
func (w *watcher) read(next func() (event, error)) error {
	for {
		e, err := next()
		if err == nil {
			err = w.take(e, time.Now())
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readEvent reads one line. It keeps only its head unless that is not enough. The error is
// io.EOF if the stream ends between two lines.
func readEvent(lines *bufio.Reader) (event, error) {
	part, err := lines.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(part) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return event{}, err
	}
	e, fault := parseEvent(part)
	var whole []byte
	for errors.Is(err, bufio.ErrBufferFull) {
		if fault != nil && len(whole) < maxEvent {
			whole = append(whole, part...)
		}
		part, err = lines.ReadSlice('\n')
	}
	if err != nil {
		return event{}, io.ErrUnexpectedEOF
	}
	if fault != nil && whole != nil {
		e, fault = parseEvent(append(whole, part...))
	}
	if fault != nil {
		return event{}, fmt.Errorf("an event cannot be read: %w", fault)
	}
	return e, nil
}

// take counts an event whose last byte arrived at now.
func (w *watcher) take(e event, now time.Time) error {
	if e.kind == "ERROR" {
		if e.code == http.StatusGone {
			return errExpired
		}
		return fmt.Errorf("the watch ended with an error of code %d", e.code)
	}
	if e.version != "" {
		w.version = e.version
	}
	w.fruitful = true
	a := w.attack.Load()
	if a == nil || e.kind == "BOOKMARK" {
		return nil
	}
	sent, ours, known := w.whenSent(e)
	switch {
	case known:
		a.stats.AddEvent(a.at(now), now.Sub(sent))
	case ours:
		a.stats.AddUnmatchedEvent()
	}
	return nil
}

// whenSent reports whether an event is of a write of this run, and whether it is known when
// that was sent.
func (w *watcher) whenSent(e event) (at time.Time, ours, known bool) {
	if e.kind == "DELETED" {
		number, ours := w.workload.createdNumber(e.name)
		at, known = w.sent.ofDelete(number)
		return at, ours, ours && known
	}
	number, ours := w.workload.writeNumber(e.write)
	at, known = w.sent.ofWrite(number)
	return at, ours, ours && known
}

// countedReader counts the bytes that come over the wire.
type countedReader struct {
	io.Reader
	watchers *watchers
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if a := r.watchers.attack.Load(); a != nil {
		a.stats.AddWatchBytes(n)
	}
	return n, err
}
