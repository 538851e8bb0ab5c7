package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
	"github.com/berth-project/berth/test/harness"
	"github.com/berth-project/berth/test/history"
)

const (
	collection = "collection" // the namespace
	// embeddedShare is the part of all faults that a server with an embedded etcd has.
	embeddedShare = 5
	// diskBytes is what an embedded etcd takes for its log and some megabytes more.
	diskBytes = 144 << 20
)

// single is a server with an embedded etcd, which has a disk of its own where that is possible.
type single struct {
	*process
	*server
}

var singleKinds = []kind[*single]{
	{name: "kill the embedded server", inject: func(t *testing.T, s *single, _ *rand.Rand) func() { return crash(t, s.process) }},
	{name: "stop the embedded server", inject: func(_ *testing.T, s *single, _ *rand.Rand) func() { return freeze(s.process) }},
	{name: "fill the disk", inject: fillDisk, needs: canMount},
	{name: "fail fsync of the embedded server", needs: canTrace, inject: func(t *testing.T, s *single, _ *rand.Rand) func() { return failSync(t, s.process) }},
}

func canMount() bool { return os.Geteuid() == 0 }

// newSingle starts a server.
func newSingle(t *testing.T, token *atomic.Pointer[string]) *single {
	t.Helper()
	dir := t.TempDir()
	if canMount() {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", diskBytes)); err != nil {
			t.Logf("without a disk of its own: %v", err)
		} else {
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
		}
	}
	address := fmt.Sprintf("127.%d.%d.10", 1+rand.IntN(254), rand.IntN(256))
	p := &process{name: "server", binary: serverBinary, dir: dir, args: func() []string {
		return []string{"--bind-address=" + address, "--secure-port=6443", "--etcd-compaction-interval=0", "--log-level=warn"}
	}}
	p.start(t)
	p.end(t)
	s := &single{p, &server{name: "server", url: "https://" + address + ":6443"}}
	data := filepath.Join(dir, "berth.data")
	await(t, "the server is ready", func(ctx context.Context) error {
		client, err := harness.NewClient(filepath.Join(data, "pki", "ca.crt"))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(data, "token"))
		if err != nil {
			return err
		}
		value := strings.TrimSpace(string(text))
		token.Store(&value)
		client.Timeout = 0 // each request has its own
		s.http = client
		return nil
	})
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// fillDisk leaves no byte of the disk. The server ends by it as soon as it needs one.
func fillDisk(t *testing.T, s *single, _ *rand.Rand) func() {
	s.mayEnd = true
	path := filepath.Join(s.dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4<<10))
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A server with an embedded etcd, a new one for each round.
func TestEmbedded(t *testing.T) { runEmbedded(t, planned()) }

func runEmbedded(t *testing.T, p plan) {
	t.Log(p)
	d := newDeck(t, p, slices.Concat(singleKinds, singleClockKinds), 1<<33)
	var token atomic.Pointer[string]
	var rotating atomic.Bool
	run := newCampaign(p, &token, &rotating)
	defer run.report(t)
	count := p.faults / embeddedShare
	if p.faults == 0 {
		count = len(d.all)
	}
	for done := 0; done < count && !t.Failed(); done += perRound {
		s := newSingle(t, &token)
		run.servers, run.processes = []*server{s.server}, []*process{s.process}
		run.recover(t)
		run.namespaces(t, collection)
		run.round(t, collection, min(count-done, perRound), func() { fault(t, run, s, d) }, func(int64) (history.History, []storage.Event) { return s.history(t) })
		run.seed++
	}
}

// history kills the server, and returns what its database has of the collection, and of everything.
func (s *single) history(t *testing.T) (history.History, []storage.Event) {
	t.Helper()
	s.kill()
	db, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(s.dir, "berth.data", "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store, err := etcd.New(db.Client(), etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	now, err := store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{prefix: "/registry/endpoints/" + collection + "/", now: map[string]history.State{}}
	events, err := store.History(t.Context(), registry, 0, now, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := r.add(e); err != nil {
			t.Fatal(err)
		}
	}
	return r.all, r.events
}
