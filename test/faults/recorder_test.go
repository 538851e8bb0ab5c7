package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/history"
)

// registry is the prefix of all objects.
const registry = "/registry/"

// recorder records what becomes of all objects in etcd, past servers and network.
type recorder struct {
	prefix string // of a collection

	mu       sync.Mutex
	all      history.History // of the collection
	events   []storage.Event // of everything
	now      map[string]history.State
	position int64 // everything up to it is recorded
	err      error
}

// record records until ctx ends. The collection must be empty as of the position.
func (r *recorder) record(ctx context.Context, client *clientv3.Client) {
	for ctx.Err() == nil && r.err == nil {
		// One of a member without a leader ends.
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		for answer := range client.Watch(watching, registry, clientv3.WithPrefix(), clientv3.WithRev(r.at()+1), clientv3.WithProgressNotify()) {
			r.take(answer)
		}
		cancel()
		pause(ctx, thinking)
	}
}

// at returns the revision up to which everything is recorded.
func (r *recorder) at() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

func (r *recorder) take(answer clientv3.WatchResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer.CompactRevision > r.position+1 {
		r.err = fmt.Errorf("revision %d was compacted before it was recorded", r.position+1)
		return
	}
	for _, event := range answer.Events {
		kv := &storage.KeyValue{Key: string(event.Kv.Key), Value: event.Kv.Value, ModRevision: event.Kv.ModRevision}
		if err := r.add(storage.Event{KV: kv, Deleted: event.Type == clientv3.EventTypeDelete}); err != nil {
			r.err = err
		}
	}
	if answer.IsProgressNotify() {
		r.position = max(r.position, answer.Header.Revision)
	}
}

// add adds one change.
func (r *recorder) add(e storage.Event) error {
	r.events = append(r.events, e)
	revision := e.KV.ModRevision
	r.position = revision
	name, found := strings.CutPrefix(e.KV.Key, r.prefix)
	if !found {
		return nil
	}
	was, exists := r.now[name]
	if e.Deleted {
		r.all = append(r.all, history.Change{Event: watch.Deleted, Version: revision, State: was})
		delete(r.now, name)
		return nil
	}
	var object corev1.Endpoints
	if err := json.Unmarshal(e.KV.Value, &object); err != nil {
		return fmt.Errorf("%s at %d: %w", name, revision, err)
	}
	c := history.Change{Event: watch.Added, Version: revision, State: history.StateOf(&object)}
	if exists {
		c.Event = watch.Modified
	}
	r.now[name] = c.State
	r.all = append(r.all, c)
	return nil
}

// history returns what was recorded, when it has come to a revision.
func (r *recorder) history(t *testing.T, revision int64) (history.History, []storage.Event) {
	t.Helper()
	await(t, fmt.Sprint("the history is recorded up to revision ", revision), func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.position < revision && r.err == nil {
			return fmt.Errorf("it has come to %d", r.position)
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.all, r.events
}
