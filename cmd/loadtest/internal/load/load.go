// Package load generates load on the Endpoints of one namespace, and measures it.
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
	Mix             Mix
	Objects         int
	Addresses       int
	Seed            uint64
	HonorRetryAfter bool
	Connections     int
	MaxWorkers      int
	Timeout         time.Duration
	Watchers        int
	WatchGzip       bool
}

// Generator generates load. Its methods are called one after the other: Prepare, Watch, Run
// as often as needed, Close, CleanUp.
type Generator struct {
	config    *Config
	client    *client.Client
	workload  *workload
	transport *transport
	watchers  *watchers // nil: none
}

// New returns a generator whose objects have the name run in theirs. No other run may have
// the same: 1 to 16 lower-case letters and digits.
func New(c *Config, cl *client.Client, run string) *Generator {
	return &Generator{
		config: c, client: cl, workload: newWorkload(c, cl.Tokens, run),
		transport: &transport{pool: newPool(c, cl), timeout: c.Timeout, sent: &sendTimes{}},
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
				body := w.bodies.of(&operation{verb: verbCreate, name: w.preparedName(i)})
				if _, err := g.client.Call(ctx, http.MethodPost, w.path, body); err != nil {
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

// CleanUp deletes what the load has left, also after ctx has ended: the whole namespace, or
// the objects in it.
func (g *Generator) CleanUp(ctx context.Context, namespace bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setupTimeout)
	defer cancel()
	path := g.workload.path + "?labelSelector=" + runLabel + "%3D" + g.workload.run
	if namespace {
		path = "/api/v1/namespaces/" + g.config.Namespace
	}
	_, err := g.client.Call(ctx, http.MethodDelete, path, nil)
	return err
}

// Close ends the watches and closes the connections of the load. CleanUp works after it.
func (g *Generator) Close() {
	if g.watchers != nil {
		g.watchers.close()
	}
	g.transport.close()
}
