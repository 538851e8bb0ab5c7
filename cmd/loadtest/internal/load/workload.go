package load

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
)

const (
	// writeAnnotation holds "run.number" of the write that last changed an object.
	writeAnnotation = "berth-loadtest/write"
	// runLabel holds the run that created an object, so that all can be deleted at once.
	runLabel = "berth-loadtest/run"
	// fieldManager owns the fields that are applied.
	fieldManager = "berth-loadtest"
	// listLimit is the page that kubectl asks for.
	listLimit = "500"
	// maxDeletable bounds the memory for objects that a delete may choose from. Any others
	// are deleted at the end of the run.
	maxDeletable = 1 << 20
)

// operation is one request of a run.
type operation struct {
	verb      verb
	token     int
	namespace int // its index
	name      string
	number    uint64 // of the object to create or delete; 0 for other verbs
	write     uint64 // number of the write, from 1; 0: it reads or deletes
	heldBack  bool   // not to be sent: its token has to wait
	crowded   bool   // all workers were busy when it was chosen

	// Set by the transport.
	connected time.Time // when it had a connection; zero: never
	received  int64     // bytes of the answer's body
	err       error     // why there is no complete answer; nil: there is one
}

// workload chooses what each request does, and keeps track of the objects that exist. It is
// safe for concurrent use.
type workload struct {
	run        string // a name that no other run has
	namespaces []string
	paths      []string // of the namespaces' Endpoints
	objects    int      // that are prepared, and never deleted
	mix        Mix
	honor      bool // of Retry-After
	tokens     *client.Tokens
	bodies     bodies

	mu        sync.Mutex
	rng       *rand.Rand
	writes    uint64
	created   uint64
	deletable []uint64 // numbers of objects that were certainly created and are not yet deleted
	swapped   uint64   // deletes that found nothing to delete and became creates
}

func newWorkload(c *Config, tokens *client.Tokens, run string) *workload {
	w := &workload{
		run:        run,
		namespaces: namespaceNames(c),
		objects:    c.Objects,
		mix:        c.Mix,
		honor:      c.HonorRetryAfter,
		tokens:     tokens,
		bodies:     newBodies(c, run),
		rng:        rand.New(rand.NewPCG(c.Seed, 0)),
	}
	for _, name := range w.namespaces {
		w.paths = append(w.paths, "/api/v1/namespaces/"+name+"/endpoints")
	}
	return w
}

// next chooses a request. The choice depends only on the seed and on what was created before
// it.
func (w *workload) next(now time.Time) *operation {
	token, usable := w.tokens.Take(now)
	if !usable && w.honor {
		return &operation{token: token, heldBack: true}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	op := &operation{token: token, verb: w.mix.pick(w.rng.IntN(w.mix.total()))}
	if op.verb == verbDelete && len(w.deletable) == 0 {
		op.verb = verbCreate
		w.swapped++
	}
	switch op.verb {
	case verbCreate:
		w.created++
		op.number = w.created
		op.name, op.namespace = w.createdName(op.number), w.home(op.number)
	case verbDelete:
		last := len(w.deletable) - 1
		i := w.rng.IntN(last + 1)
		op.number = w.deletable[i]
		w.deletable[i] = w.deletable[last]
		w.deletable = w.deletable[:last]
		op.name, op.namespace = w.createdName(op.number), w.home(op.number)
	case verbList:
		op.namespace = w.rng.IntN(len(w.paths))
	default:
		i := w.rng.IntN(w.objects)
		op.name, op.namespace = w.preparedName(i), w.home(uint64(i))
	}
	if op.verb.writes() && op.verb != verbDelete {
		w.writes++
		op.write = w.writes
	}
	return op
}

// succeeded records what a successful request has created.
func (w *workload) succeeded(op *operation) {
	if op.verb != verbCreate {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.deletable) < maxDeletable {
		w.deletable = append(w.deletable, op.number)
	}
}

// swappedDeletes returns how many deletes were sent as creates so far.
func (w *workload) swappedDeletes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.swapped
}

// home returns the index of the namespace that an object is in.
func (w *workload) home(number uint64) int { return int(number % uint64(len(w.paths))) }

func (w *workload) createdName(number uint64) string {
	return "lt-" + w.run + "-" + strconv.FormatUint(number, 10)
}

func (w *workload) preparedName(i int) string {
	return "lt-" + w.run + "-p" + strconv.Itoa(i)
}

// createdNumber is the inverse of createdName; ok is false for other names.
func (w *workload) createdNumber(name string) (number uint64, ok bool) {
	digits, found := strings.CutPrefix(name, "lt-"+w.run+"-")
	if !found {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// writeNumber returns the number in the value of writeAnnotation; ok is false if that is of
// another run.
func (w *workload) writeNumber(annotation string) (number uint64, ok bool) {
	digits, found := strings.CutPrefix(annotation, w.run+".")
	if !found {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil
}

// target puts the request for an operation into t.
func (w *workload) target(op *operation, cl *client.Client, t *vegeta.Target) {
	t.Header = cl.Header(op.token)
	if w.bodies.protobuf {
		t.Header.Set("Accept", protobufType)
	}
	collection := w.paths[op.namespace]
	path := collection + "/" + op.name
	switch op.verb {
	case verbCreate:
		t.Method, path = http.MethodPost, collection
	case verbGet:
		t.Method = http.MethodGet
	case verbUpdate:
		t.Method = http.MethodPut
	case verbPatch:
		t.Method = http.MethodPatch
	case verbApply:
		t.Method = http.MethodPatch
		path += "?force=true&fieldManager=" + fieldManager
	case verbList:
		t.Method, path = http.MethodGet, collection+"?limit="+listLimit
	case verbDelete:
		t.Method = http.MethodDelete
	}
	t.URL = cl.Server + path
	if op.verb.writes() && op.verb != verbDelete {
		body, contentType := w.bodies.of(op)
		t.Body = body
		t.Header.Set("Content-Type", contentType)
	}
}
