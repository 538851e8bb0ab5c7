// Package audit records who has asked for what, and what came of it: an audit log in the form of
// kube-apiserver, with the policies of audit.k8s.io/v1. The types are kube-apiserver's; what they
// mean is worked out here.
//
// A request never waits for the log. Lines go into a queue, which one goroutine writes to a file;
// what does not fit, or cannot be written, is lost, counted and told of in the server's log.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

const (
	// DefaultQueueLines is Config.QueueLines where that is 0: some seconds of a busy server.
	DefaultQueueLines = 50_000
	// DefaultMaxEventBytes is Config.MaxEventBytes where that is 0: enough for the largest body
	// that a client can send, both ways.
	DefaultMaxEventBytes = 8 << 20
	// maxQueueBytes bounds the lines that wait, beside their number.
	maxQueueBytes = 32 << 20
	// maxHeldBytes bounds what is made of the objects of requests in progress.
	maxHeldBytes = 32 << 20
	// chunkBytes is how much is written at once, except for longer lines.
	chunkBytes = 64 << 10
	// gatherTime is how long a line may wait for others, so that a busy server does not need a
	// system call for each; gatherBytes do not wait.
	gatherTime, gatherBytes = 20 * time.Millisecond, 1 << 20
	// reportInterval is how often the server's log tells of lost lines at most.
	reportInterval = 30 * time.Second
	// interruptTime is how long Close waits for a writer that it has interrupted.
	interruptTime = time.Second
)

// Config is what a Log is made of. Without a comment a field is required.
type Config struct {
	Policy *Policy
	// Path is the file; "-" is Stdout. Its directory is created, too.
	Path   string
	Stdout io.Writer
	// MaxSize is how many MiB a file may have before it is renamed and another begun; 0: any.
	MaxSize int
	// MaxAge and MaxBackups are how many days old renamed files may be, and how many are kept; 0: any.
	MaxAge, MaxBackups int
	// Compress has renamed files compressed with gzip.
	Compress bool
	// QueueLines is how many lines may wait to be written; 0: DefaultQueueLines.
	QueueLines int
	// MaxEventBytes is how long a line may be. A longer one is written without its objects; 0:
	// DefaultMaxEventBytes.
	MaxEventBytes int
	// Logger is told of lines that are lost.
	Logger  zerolog.Logger
	Metrics prometheus.Registerer
}

// Log is an audit log. Its methods may be called at the same time.
type Log struct {
	cfg     Config
	policy  atomic.Pointer[Policy]
	out     *output
	metrics logMetrics
	held    atomic.Int64 // bytes of objects of requests in progress

	mu      sync.Mutex // guards what follows
	chunks  [][]byte   // whole lines each, in the order in which they are written
	lines   int        // in chunks, and being written
	bytes   int        // likewise
	closed  bool
	lost    int       // lines that no message has told of
	told    time.Time // when the last message was logged
	waiting chan struct{}
	urgent  chan struct{}

	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
}

type logMetrics struct {
	events prometheus.Counter
	errors map[string]prometheus.Counter // by plugin
	levels []prometheus.Counter          // by Level
}

// The plugins of kube-apiserver, by which lost lines are counted: those that could not be
// written, that the queue had no room for, and that are too long even without their objects.
const (
	pluginLog      = "log"
	pluginBuffered = "buffered"
	pluginTruncate = "truncate"
)

func newLogMetrics(registerer prometheus.Registerer, l *Log) logMetrics {
	factory := promauto.With(registerer)
	lost := factory.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_audit_error_total", Help: "Lines of the audit log that are lost.",
	}, []string{"plugin"})
	levels := factory.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_audit_level_total", Help: "Requests by the level at which the audit log records them.",
	}, []string{"level"})
	m := logMetrics{
		events: factory.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_event_total", Help: "Lines for the audit log, those included that are lost.",
		}),
		errors: map[string]prometheus.Counter{},
	}
	for _, plugin := range []string{pluginLog, pluginBuffered, pluginTruncate} {
		m.errors[plugin] = lost.WithLabelValues(plugin)
	}
	for level := range levelNames {
		m.levels = append(m.levels, levels.WithLabelValues(Level(level).String()))
	}
	factory.NewCounter(prometheus.CounterOpts{
		Name: "apiserver_audit_requests_rejected_total", Help: "Requests refused since they could not be recorded; always 0.",
	})
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_audit_queue_bytes", Help: "Bytes of the lines that wait to be written to the audit log.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.bytes)
	})
	return m
}

// Open returns a log that writes, or why its file cannot be written. Close must be called.
func Open(cfg Config) (*Log, error) {
	if cfg.Policy == nil || cfg.Path == "" || cfg.Metrics == nil || cfg.Path == "-" && cfg.Stdout == nil {
		return nil, errors.New("audit: Policy, Path, Metrics and, for -, Stdout are required")
	}
	if cfg.QueueLines == 0 {
		cfg.QueueLines = DefaultQueueLines
	}
	if cfg.MaxEventBytes == 0 {
		cfg.MaxEventBytes = DefaultMaxEventBytes
	}
	if cfg.MaxSize > 0 { // a line cannot be longer than a file
		cfg.MaxEventBytes = min(cfg.MaxEventBytes, cfg.MaxSize<<20)
	}
	out, err := openOutput(&cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	run, stop := context.WithCancel(context.Background())
	l := &Log{
		cfg: cfg, out: out, waiting: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		stop: stop, done: make(chan struct{}),
	}
	l.policy.Store(cfg.Policy)
	l.metrics = newLogMetrics(cfg.Metrics, l)
	go l.run(run)
	return l, nil
}

// SetPolicy has requests that begin from now on judged by another policy.
func (l *Log) SetPolicy(policy *Policy) { l.policy.Store(policy) }

// Reopen has the file opened again before the next line is written.
func (l *Log) Reopen() { l.out.reopen.Store(true) }

// Close writes the lines that wait, until ctx ends, and closes the file. Lines that come later
// are lost. The error says how many could not be written. Close may be called for nil.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		// Who writes to a pipe can be interrupted, and ends soon. A disk that hangs keeps its writer,
		// until the process ends.
		l.out.interrupt()
		select {
		case <-l.done:
		case <-time.After(interruptTime):
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(errors.New("the end of the process did not wait for them"), true)
	if l.lines > 0 {
		return fmt.Errorf("the audit log could not be written in time: %d lines are lost", l.lines)
	}
	return nil
}

// hold reports whether there is memory for so many bytes of an object, and if so notes that e
// has them, twice: as they came and as a line.
func (l *Log) hold(e *Entry, size int64) bool {
	size *= 2
	if l.held.Add(size) > maxHeldBytes {
		l.held.Add(-size)
		return false
	}
	e.held += size
	return true
}

func (l *Log) release(e *Entry) {
	l.held.Add(-e.held)
	e.held = 0
}

// buffers are for lines while they are made, and for chunks of them.
var buffers = sync.Pool{New: func() any {
	buffer := make([]byte, 0, chunkBytes)
	return &buffer
}}

// record puts an event's line into the queue.
func (l *Log) record(e *event, stage auditv1.Stage, at time.Time) {
	l.metrics.events.Inc()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	line := e.append((*buffer)[:0], stage, at)
	if len(line) > l.cfg.MaxEventBytes && (e.requestObject != nil || e.responseObject != nil) {
		e.requestObject, e.responseObject, e.truncated = nil, nil, true
		line = e.append((*buffer)[:0], stage, at)
	}
	if len(line) > l.cfg.MaxEventBytes {
		l.lose(pluginTruncate, 1, fmt.Errorf("a line of %d bytes is longer than allowed, %d", len(line), l.cfg.MaxEventBytes))
		return
	}
	l.enqueue(line)
}

// enqueue copies a line, except that it takes over one that is longer than a chunk.
func (l *Log) enqueue(line []byte) {
	l.mu.Lock()
	if l.closed || l.lines >= l.cfg.QueueLines || l.bytes+len(line) > maxQueueBytes {
		l.mu.Unlock()
		l.lose(pluginBuffered, 1, errors.New("the queue is full: the file cannot be written, or not as fast as lines come"))
		return
	}
	switch last := len(l.chunks) - 1; {
	case len(line) > chunkBytes:
		l.chunks = append(l.chunks, line)
	case last >= 0 && len(l.chunks[last])+len(line) <= chunkBytes:
		l.chunks[last] = append(l.chunks[last], line...)
	default:
		l.chunks = append(l.chunks, append((*buffers.Get().(*[]byte))[:0], line...))
	}
	l.lines++
	l.bytes += len(line)
	isUrgent := l.bytes > gatherBytes
	l.mu.Unlock()
	signal(l.waiting)
	if isUrgent {
		signal(l.urgent)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled
	}
}

// run writes what is in the queue, until ctx ends and the queue is empty.
func (l *Log) run(ctx context.Context) {
	defer close(l.done)
	defer l.out.close()
	for ended := false; !ended; {
		select {
		case <-l.waiting:
			gathered := time.NewTimer(gatherTime)
			select {
			case <-gathered.C:
			case <-l.urgent:
			case <-ctx.Done():
			}
			gathered.Stop()
		case <-ctx.Done():
			ended = true // Close lets no more lines in
		}
		l.mu.Lock()
		chunks := l.chunks
		l.chunks = nil
		l.mu.Unlock()
		for _, chunk := range chunks {
			l.write(chunk)
		}
	}
}

// write writes whole lines, and takes them off the queue's account.
func (l *Log) write(chunk []byte) {
	written, err := l.out.write(chunk)
	l.mu.Lock()
	l.lines -= bytes.Count(chunk, []byte{'\n'})
	l.bytes -= len(chunk)
	l.mu.Unlock()
	if err != nil {
		l.lose(pluginLog, bytes.Count(chunk[written:], []byte{'\n'}), err)
	}
	if cap(chunk) == chunkBytes {
		buffers.Put(&chunk)
	}
}

// lose counts lines that are lost, and tells of them now and then.
func (l *Log) lose(plugin string, lines int, cause error) {
	l.metrics.errors[plugin].Add(float64(lines))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += lines
	l.tell(cause, false)
}

// tell logs how many lines are lost of which nothing has been told, if it is time or evenSo.
// l.mu must be held.
func (l *Log) tell(cause error, evenSo bool) {
	if l.lost == 0 || !evenSo && time.Since(l.told) < reportInterval {
		return
	}
	l.cfg.Logger.Error().Err(cause).Str("path", l.cfg.Path).Int("lines", l.lost).Msg("lines of the audit log are lost")
	l.lost, l.told = 0, time.Now()
}
