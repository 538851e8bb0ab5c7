// Package load generates load on the Endpoints of one or more namespaces, and measures it.
package load

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-project/berth/cmd/loadtest/internal/client"
)

// setupTimeout bounds each step before and after a load, except the preparation of objects,
// which goes on as long as there is progress.
const setupTimeout = time.Minute

// Config is what the load consists of, as the flags of the same names say. Its zero value is
// not usable: Mix, Objects, Connections, MaxWorkers and Timeout must be set.
type Config struct {
	Namespace       string
	Namespaces      int // at least 1; several have numbers after Namespace
	Mix             Mix
	Objects         int
	Addresses       int
	Seed            uint64
	HonorRetryAfter bool
	Connections     int // 0: as clients of client-go have
	MaxWorkers      int
	Timeout         time.Duration
	Protobuf        bool // instead of JSON, except for patches
	Watchers        int
	WatchGzip       bool
}

// Generator generates load. Its methods are called one after the other: OpenNamespaces,
// Prepare, Watch, Run or Send as often as needed, Close, CleanUp. Left may be called at any
// time.
type Generator struct {
	config    *Config
	client    *client.Client
	workload  *workload
	transport *transport
	watchers  *watchers // nil: none

	mu   sync.Mutex
	left []leftover // what CleanUp has to delete
}

// New returns a generator whose objects have the name run in theirs. No other run may have
// the same: 1 to 16 lower-case letters and digits.
func New(c *Config, cl *client.Client, run string) *Generator {
	return &Generator{
		config: c, client: cl, workload: newWorkload(c, cl.Tokens, run),
		transport: newTransport(c, cl),
	}
}

// SwappedDeletes returns how many deletes were sent as creates so far, because there was
// nothing to delete.
func (g *Generator) SwappedDeletes() uint64 { return g.workload.swappedDeletes() }

// Prepare creates the objects that the load works on. It calls done with how many exist, one
// call at a time.
func (g *Generator) Prepare(ctx context.Context, done func(count int)) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var preparing sync.WaitGroup
	var next atomic.Int64
	var mu sync.Mutex
	finished := 0
	w := g.workload
	for range min(client.Parallel, w.objects) {
		preparing.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= w.objects {
					return
				}
				op := &operation{verb: verbCreate, name: w.preparedName(i), namespace: i % len(w.paths)}
				if _, err := g.client.Call(ctx, http.MethodPost, w.paths[op.namespace], w.bodies.json(op)); err != nil {
					fail(err)
					return
				}
				mu.Lock()
				finished++
				done(finished)
				mu.Unlock()
			}
		})
	}
	preparing.Wait()
	return context.Cause(ctx)
}

// Watch opens the watches that the load is to have, and returns when all are open. They last
// until Close is called.
func (g *Generator) Watch(ctx context.Context) (err error) {
	if g.config.Watchers > 0 {
		g.watchers, err = startWatchers(ctx, g.config, g.client, g.workload, g.transport.sent)
	}
	return err
}

// Close ends the watches and closes the connections of the load. CleanUp works after it.
func (g *Generator) Close() {
	if g.watchers != nil {
		g.watchers.close()
	}
	g.transport.close()
}
