package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/test/harness"
)

// patience is far more than anything here takes on a machine under load.
const patience = 30 * time.Second

// testLog is a log, and what a test looks at.
type testLog struct {
	*Log
	path    string
	metrics *prometheus.Registry
	told    *harness.Output // the server's log
}

// openLog opens a log that is closed when the test ends, unless the test has closed it.
func openLog(t *testing.T, cfg Config) *testLog {
	t.Helper()
	l := &testLog{path: cfg.Path, metrics: prometheus.NewRegistry(), told: &harness.Output{}}
	if cfg.Path == "" {
		l.path = filepath.Join(t.TempDir(), "log", "audit.log")
	}
	cfg.Path, cfg.Metrics, cfg.Logger = l.path, l.metrics, zerolog.New(l.told)
	if cfg.Policy == nil {
		policy, err := ParsePolicy([]byte(header + "rules: [{level: RequestResponse}]"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Policy = policy
	}
	before := goleak.IgnoreCurrent()
	var err error
	if l.Log, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.close(patience)
		goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
	})
	return l
}

func (l *testLog) close(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return l.Close(ctx)
}

// lose returns how many lines are counted as lost by the plugin.
func (l *testLog) losses(plugin string) int {
	return int(value(l.Log.metrics.errors[plugin]))
}

// value returns what a counter has counted.
func value(counter prometheus.Metric) float64 {
	var m dto.Metric
	if err := counter.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// get records one request for the path.
func (l *testLog) get(path string) {
	a := &auth.Attributes{User: alice, Verb: "get", Path: path}
	l.Begin(httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil), "id-"+path, time.Now(), a).End(200)
}

// write records one request, and waits until there is nothing in the queue.
func (l *testLog) write(t *testing.T, path string) {
	t.Helper()
	l.get(path)
	l.settle(t)
}

func (l *testLog) settle(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.lines == 0
	})
}

// read returns stage and path of the events in files, in their order.
func read(t *testing.T, paths ...string) (events []string) {
	t.Helper()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, ".gz") {
			unzip, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(unzip); err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(string(data)) {
			var event auditv1.Event
			if err := json.Unmarshal([]byte(line), &event); err != nil || !strings.HasSuffix(line, "\n") {
				events = append(events, fmt.Sprintf("no event: %.20q", line))
				continue
			}
			events = append(events, string(event.Stage)+" "+event.RequestURI)
		}
	}
	return events
}

func both(paths ...string) (events []string) {
	for _, path := range paths {
		events = append(events, "RequestReceived "+path, "ResponseComplete "+path)
	}
	return events
}

func TestLogCreates(t *testing.T) {
	l := openLog(t, Config{})
	file, err := os.Stat(l.path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Stat(filepath.Dir(l.path))
	if err != nil {
		t.Fatal(err)
	}
	if file.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
		t.Errorf("modes %v and %v, want 0600 and 0700", file.Mode(), dir.Mode())
	}
	l.write(t, "/a")
	l.get("/b")
	if err := l.close(patience); err != nil {
		t.Fatal(err)
	}
	l.get("/c") // a request that ends late
	if diff := cmp.Diff(both("/a", "/b"), read(t, l.path)); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
	if lost, all := l.losses(pluginBuffered), value(l.Log.metrics.events); lost != 2 || all != 6 {
		t.Errorf("%d lines of %v are lost, want 2 of 6", lost, all)
	}
	if info, err := os.Stat(l.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// create records a create of an object with an annotation of so many bytes.
func (l *testLog) create(size int) (last auditv1.Event) {
	a := &auth.Attributes{User: alice, Verb: "create", ResourceRequest: true, APIVersion: "v1", Resource: "endpoints", Namespace: "a"}
	e := l.Begin(httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/v1/namespaces/a/endpoints", nil), "id", time.Now(), a)
	e.Authorize(true, "", nil)
	obj := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"a": strings.Repeat("x", size)}}}
	e.Sent(obj, corev1.SchemeGroupVersion.WithKind("Endpoints"))
	e.AnswerObject(0, func(w io.Writer) error { return json.NewEncoder(w).Encode(obj) })
	line := e.event.append(nil, auditv1.StageResponseComplete, time.Now())
	e.End(201)
	_ = json.Unmarshal(line, &last)
	return last
}

// TestTruncation leaves out the objects of a line that would be too long, and has lines dropped that
// are so without objects.
func TestTruncation(t *testing.T) {
	l := openLog(t, Config{MaxEventBytes: 10_000})
	for _, size := range []int{4000, 6000, 12_000} {
		l.create(size)
	}
	l.get("/" + strings.Repeat("x", 10_000))
	l.settle(t)
	var got []string
	data, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var event auditv1.Event
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.Stage == auditv1.StageResponseComplete {
			got = append(got, fmt.Sprintf("%v,%v,%s", event.RequestObject != nil, event.ResponseObject != nil, event.Annotations["audit.k8s.io/truncated"]))
		}
	}
	if diff := cmp.Diff([]string{"true,true,", "false,false,true", "false,false,true"}, got); diff != "" {
		t.Errorf("request, response, truncated (-want +got)\n%s", diff)
	}
	if lost := l.losses(pluginTruncate); lost != 2 {
		t.Errorf("%d lines are lost, want 2", lost)
	}
	if held := l.held.Load(); held != 0 {
		t.Errorf("%d bytes are held after all requests have ended", held)
	}
}

// TestMemory has objects left out while those of other requests take the memory there is.
func TestMemory(t *testing.T) {
	l := openLog(t, Config{})
	taken := &Entry{}
	if !l.hold(taken, maxHeldBytes/2-1000) {
		t.Fatal("an empty log has no room")
	}
	if event := l.create(2000); event.RequestObject != nil || event.Annotations["audit.k8s.io/truncated"] != "true" {
		t.Errorf("got %+v", event)
	}
	l.release(taken)
	if event := l.create(2000); event.RequestObject == nil || event.ResponseObject == nil || len(event.Annotations) != 2 {
		t.Errorf("got %+v", event)
	}
}

func TestSetPolicy(t *testing.T) {
	l := openLog(t, Config{})
	none, err := ParsePolicy([]byte(header + "rules: [{level: None}]"))
	if err != nil {
		t.Fatal(err)
	}
	l.get("/a")
	l.SetPolicy(none)
	l.get("/b")
	l.settle(t)
	if diff := cmp.Diff(both("/a"), read(t, l.path)); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
	var got []float64
	for _, counter := range l.Log.metrics.levels {
		got = append(got, value(counter))
	}
	if diff := cmp.Diff([]float64{1, 0, 0, 1}, got); diff != "" {
		t.Errorf("requests by level (-want +got)\n%s", diff)
	}
}

func TestConcurrent(t *testing.T) {
	l := openLog(t, Config{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 500 {
				l.get(fmt.Sprintf("/%d/%d", i, j))
				l.create(1000 * (j % 5))
			}
		})
	}
	all.Wait()
	if err := l.close(patience); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, event := range read(t, l.path) {
		seen[event]++
	}
	if len(seen) != 8*500*2+2 {
		t.Errorf("%d different events, want %d", len(seen), 8*500*2+2)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	deadline, poll := time.After(patience), time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("the condition does not hold after %v", patience)
		}
	}
}
