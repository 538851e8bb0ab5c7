package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/test/history"
)

const (
	writers = 6
	names   = 12
	// thinking is how long a writer waits between two requests.
	thinking = 30 * time.Millisecond
)

// load is what clients do to one collection, at all servers, and what became of it.
type load struct {
	*answers
	servers   []*server
	namespace string
	seed      uint64
	began     time.Time

	mu      sync.Mutex
	calls   map[string][]porcupine.Operation // by name
	written map[int64]history.State          // by version: acknowledged creates and updates
	deleted map[types.UID]bool               // acknowledged deletions of a state that was read
	watches map[int]int                      // ends of watches by their codes
}

func newLoad(a *answers, servers []*server, namespace string, seed uint64) *load {
	return &load{
		answers: a, servers: servers, namespace: namespace, seed: seed, began: time.Now(),
		calls: map[string][]porcupine.Operation{}, written: map[int64]history.State{}, deleted: map[types.UID]bool{}, watches: map[int]int{},
	}
}

// random is the source of randomness of one actor: it depends on the seed and on who that is, not on
// what the others do.
func (l *load) random(actor int) *rand.Rand { return rand.New(rand.NewPCG(l.seed, uint64(actor))) }

func (l *load) path(name string) string {
	return "/api/v1/namespaces/" + l.namespace + "/endpoints" + name + "?timeout=" + serverTimeout.String()
}

// write reads and writes at random until ctx ends.
func (l *load) write(ctx context.Context, writer int) {
	random := l.random(writer)
	for i := 0; pause(ctx, thinking/2+rand.N(thinking)); i++ {
		name := fmt.Sprintf("object-%02d", random.IntN(names))
		at := l.servers[random.IntN(len(l.servers))]
		tag, half := fmt.Sprintf("%d/%d", writer, i), []string{"a", "b"}[random.IntN(2)]
		switch choice := random.IntN(100); {
		case choice < 20:
			l.one(ctx, writer, at, name, half, call{verb: create, tag: tag}, corev1.Endpoints{})
		case choice < 30:
			l.one(ctx, writer, at, name, half, call{verb: replace, tag: tag}, corev1.Endpoints{})
		case choice < 40:
			l.one(ctx, writer, at, name, half, call{verb: remove}, corev1.Endpoints{})
		default:
			read, ok := l.one(ctx, writer, at, name, half, call{verb: get}, corev1.Endpoints{})
			// What comes next may be of another server.
			at = l.servers[random.IntN(len(l.servers))]
			switch c := (call{tag: tag, read: read.Annotations[history.WrittenBy]}); {
			case !ok || choice < 50:
			case choice < 80:
				c.verb = update
				l.one(ctx, writer, at, name, half, c, read)
			default:
				c.verb, c.tag = expunge, ""
				l.one(ctx, writer, at, name, half, c, read)
			}
		}
	}
}

// one makes one call, and records it. It returns the object that it was answered with, if it was.
func (l *load) one(ctx context.Context, writer int, at *server, name, half string, c call, read corev1.Endpoints) (corev1.Endpoints, bool) {
	object := corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{history.Half: half}, Annotations: map[string]string{history.WrittenBy: c.tag},
	}}
	method, path, body := http.MethodPut, l.path("/"+name), any(object)
	switch c.verb {
	case get:
		method, body = http.MethodGet, nil
	case create:
		method, path = http.MethodPost, l.path("")
	case update:
		object.UID, object.ResourceVersion = read.UID, read.ResourceVersion
		body = object
	case remove:
		method, body = http.MethodDelete, nil
	case expunge:
		method, body = http.MethodDelete, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &read.UID, ResourceVersion: &read.ResourceVersion}}
	}
	// The end of the load is none of a call's.
	ctx = context.WithoutCancel(ctx)
	op := porcupine.Operation{ClientId: writer, Input: c, Call: int64(time.Since(l.began))}
	code, answer := l.send(ctx, at, method, path, body)
	op.Return = int64(time.Since(l.began))
	o := outcome{result: resultOf(code)}
	if o.result == done {
		o.tag = answer.Annotations[history.WrittenBy]
		l.acknowledge(c, answer, read)
	}
	op.Output = o
	l.mu.Lock()
	l.calls[name] = append(l.calls[name], op)
	l.mu.Unlock()
	return answer, o.result == done
}

func resultOf(code int) result {
	switch code {
	case http.StatusOK, http.StatusCreated:
		return done
	case http.StatusNotFound:
		return missing
	case http.StatusConflict:
		return conflict
	case notSent, http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusUnauthorized:
		return refused
	default:
		return unknown
	}
}

// acknowledge notes what a client was told that it has written or deleted.
func (l *load) acknowledge(c call, answer, read corev1.Endpoints) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.verb {
	case get, remove:
	case expunge:
		l.deleted[read.UID] = true
	default:
		version, err := strconv.ParseInt(answer.ResourceVersion, 10, 64)
		if _, twice := l.written[version]; err != nil || twice {
			l.fault(fmt.Errorf("a write was answered with version %q: twice: %t, %w", answer.ResourceVersion, twice, err))
		}
		l.written[version] = history.StateOf(&answer)
	}
}

// verify holds what clients were told against what became of the collection.
func (l *load) verify(all history.History) (faults []error) {
	if err := all.Consistent(); err != nil {
		faults = append(faults, err)
	}
	written, deleted, tags := map[int64]history.State{}, map[types.UID]bool{}, map[string]bool{}
	for _, c := range all {
		if c.Event == "DELETED" {
			deleted[c.UID] = true
			continue
		}
		written[c.Version] = c.State
		tags[c.Written] = true
	}
	for version, state := range l.written {
		if written[version] != state {
			faults = append(faults, fmt.Errorf("lost: %+v was acknowledged at %d, where the store has %+v", state, version, written[version]))
		}
	}
	for uid := range l.deleted {
		if !deleted[uid] {
			faults = append(faults, fmt.Errorf("lost: the deletion of %s was acknowledged", uid))
		}
	}
	for name, calls := range l.calls {
		for _, op := range calls {
			tags[op.Output.(outcome).tag] = true
		}
		if got := linearizable(calls, tags, patience); got != porcupine.Ok {
			faults = append(faults, fmt.Errorf("the history of %s is not linearizable, %v:\n%s", name, got, show(calls)))
		}
	}
	return faults
}

// show lists calls as they began.
func show(calls []porcupine.Operation) (text string) {
	slices.SortFunc(calls, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range calls {
		text += fmt.Sprintf("%v to %v: client %d: %+v: %+v\n", time.Duration(op.Call), time.Duration(op.Return), op.ClientId, op.Input, op.Output)
	}
	return text
}
