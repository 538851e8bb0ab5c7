package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/history"
)

// Three servers on three members: each round has a collection of its own.
func TestCluster(t *testing.T) { runCluster(t, planned()) }

func runCluster(t *testing.T, p plan) {
	t.Log(p)
	d := newDeck(t, p, slices.Concat(kinds, clockKinds), 1<<32)
	c := newCluster(t)
	run := newCampaign(p, &c.token, &c.rotating, c.servers()...)
	for _, m := range c.members {
		run.processes = append(run.processes, m.process)
	}
	defer run.report(t)
	run.recover(t)
	count := p.faults - p.faults/embeddedShare
	if p.faults == 0 {
		count = len(d.all)
	}
	for done, n := 0, 0; done < count && !t.Failed(); done += perRound {
		c.round(t, run, fmt.Sprint("round-", n), min(count-done, perRound), d)
		run.seed++
		n++
	}
}

func (c *cluster) servers() []*server {
	var all []*server
	for _, r := range c.replicas {
		all = append(all, &server{r.name, r.url, r.http})
	}
	return all
}

// round is a round of a campaign, recorded while it lasts.
func (c *cluster) round(t *testing.T, run *campaign, namespace string, count int, d *deck[*cluster]) {
	t.Helper()
	run.namespaces(t, namespace)
	var revision int64
	await(t, "etcd has the namespace", func(ctx context.Context) error {
		answer, err := c.direct.Get(ctx, "/registry/namespaces/"+namespace)
		if err == nil && len(answer.Kvs) == 0 {
			err = errors.New("it has not")
		}
		if err == nil {
			revision = answer.Header.Revision
		}
		return err
	})
	c.recorder = &recorder{prefix: "/registry/endpoints/" + namespace + "/", now: map[string]history.State{}, position: revision}
	ctx, cancel := context.WithCancel(t.Context())
	var recording sync.WaitGroup
	recording.Go(func() { c.recorder.record(ctx, c.direct) })
	defer recording.Wait()
	defer cancel()
	run.round(t, namespace, count, func() { fault(t, run, c, d) }, func(last int64) (history.History, []storage.Event) { return c.recorder.history(t, last) })
}
