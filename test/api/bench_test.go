package api

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/framer"
)

// form is what a client asks for.
type form struct {
	name, query string
	headers     []string
}

const (
	acceptProtobuf = "application/vnd.kubernetes.protobuf"
	acceptMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	acceptTable    = "application/json;as=Table;g=meta.k8s.io;v=v1"
)

// addressed is Endpoints of n addresses as JSON.
func addressed(name string, n int) []byte {
	var b strings.Builder
	b.WriteString(`{"metadata":{"name":"` + name + `","labels":{"app":"bench"}},"subsets":[{"addresses":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ip":"10.%d.%d.%d"}`, i>>16, i>>8&255, i&255)
	}
	b.WriteString(`],"ports":[{"port":80}]}]}`)
	return []byte(b.String())
}

// benchmark sends one request after the other on one connection of HTTP/2, as client-go
// does, each with its answer.
// The time is that of client and server together.
func benchmark(b *testing.B, code int, request func(b *testing.B, ns string, addresses, i int) *http.Request) {
	for _, n := range []int{1, 1000} {
		b.Run("addresses="+strconv.Itoa(n), func(b *testing.B) {
			client, ns := newClient(b, shared, true), newNamespace(b, shared)
			send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("taken", n)))
			send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), body("last"), "X-Auth-Token", spentToken))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if a := send(b, client, request(b, ns, n, i)); a.code != code {
					b.Fatalf("%d %s", a.code, a.body)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	benchmark(b, http.StatusCreated, func(b *testing.B, ns string, addresses, i int) *http.Request {
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("e-"+strconv.Itoa(i), addresses))
	})
}

func BenchmarkDryRunCreate(b *testing.B) {
	benchmark(b, http.StatusCreated, func(b *testing.B, ns string, addresses, i int) *http.Request {
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, "")+"?dryRun=All", addressed("e-"+strconv.Itoa(i), addresses))
	})
}

func BenchmarkGet(b *testing.B) {
	for _, accept := range []string{"application/json", acceptProtobuf} {
		b.Run("accept="+accept, func(b *testing.B) {
			benchmark(b, http.StatusOK, func(b *testing.B, ns string, _, _ int) *http.Request {
				return newRequest(b, shared, http.MethodGet, endpointsPath(ns, "taken"), nil, "Accept", accept)
			})
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	bodies := map[int][2][]byte{}
	benchmark(b, http.StatusOK, func(b *testing.B, ns string, addresses, i int) *http.Request {
		if _, ok := bodies[addresses]; !ok {
			bodies[addresses] = [2][]byte{addressed("taken", addresses+1), addressed("taken", addresses)}
		}
		return newRequest(b, shared, http.MethodPut, endpointsPath(ns, "taken"), bodies[addresses][i%2])
	})
}

func BenchmarkMergePatch(b *testing.B) {
	benchmark(b, http.StatusOK, func(b *testing.B, ns string, _, i int) *http.Request {
		patch := `{"metadata":{"labels":{"turn":"` + strconv.Itoa(i) + `"}}}`
		return newRequest(b, shared, http.MethodPatch, endpointsPath(ns, "taken"), []byte(patch), "Content-Type", "application/merge-patch+json")
	})
}

func BenchmarkApply(b *testing.B) {
	benchmark(b, http.StatusOK, func(b *testing.B, ns string, addresses, i int) *http.Request {
		config := append([]byte(`{"apiVersion":"v1","kind":"Endpoints",`), addressed("taken", addresses+i%2)[1:]...)
		return newRequest(b, shared, http.MethodPatch, endpointsPath(ns, "taken")+"?fieldManager=bench&force=true", config, "Content-Type", "application/apply-patch+yaml")
	})
}

// BenchmarkDelete deletes what it has just made: BenchmarkCreate's time is in it.
func BenchmarkDelete(b *testing.B) {
	benchmark(b, http.StatusOK, func(b *testing.B, ns string, addresses, _ int) *http.Request {
		checkCode(b, send(b, shared.Client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("gone", addresses))), http.StatusCreated, "")
		return newRequest(b, shared, http.MethodDelete, endpointsPath(ns, "gone"), nil)
	})
}

// BenchmarkList lists 500 objects in each form.
func BenchmarkList(b *testing.B) {
	for _, f := range []form{
		{name: "json"},
		{name: "gzip", headers: []string{"Accept-Encoding", "gzip"}},
		{name: "protobuf", headers: []string{"Accept", acceptProtobuf}},
		{name: "metadata", headers: []string{"Accept", acceptMetadata}},
		{name: "table", headers: []string{"Accept", acceptTable}},
		{name: "selector-all", query: "?labelSelector=app%3Dbench"},
		{name: "selector-none", query: "?labelSelector=app%3Dnone"},
		{name: "selector-not", query: "?labelSelector=%21x"},
	} {
		for _, n := range []int{1, 10} {
			b.Run("form="+f.name+"/addresses="+strconv.Itoa(n), func(b *testing.B) {
				client, ns := newClient(b, shared, true), newNamespace(b, shared)
				for i := range 500 {
					checkCode(b, send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("e-"+strconv.Itoa(i), n))), http.StatusCreated, "")
				}
				b.ReportAllocs()
				for b.Loop() {
					a := send(b, client, newRequest(b, shared, http.MethodGet, endpointsPath(ns, "")+f.query, nil, f.headers...))
					checkCode(b, a, http.StatusOK, "")
					b.SetBytes(int64(len(a.body)))
				}
			})
		}
	}
}

// BenchmarkWatch is the time until an event has reached each of a hundred watchers, in each
// form.
func BenchmarkWatch(b *testing.B) {
	const watchers = 100
	for _, f := range []form{
		{name: "json"},
		{name: "gzip", headers: []string{"Accept-Encoding", "gzip"}},
		{name: "protobuf", headers: []string{"Accept", acceptProtobuf + ";stream=watch"}},
		{name: "selector", query: "&labelSelector=app%3Dbench"},
	} {
		for _, n := range []int{1, 1000} {
			b.Run("form="+f.name+"/addresses="+strconv.Itoa(n), func(b *testing.B) {
				client, ns := newClient(b, shared, true), newNamespace(b, shared)
				send(b, client, newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), addressed("taken", n)))
				arrived := make(chan struct{}, watchers)
				for range watchers {
					watchInBackground(b, ns, f, arrived)
				}
				for range watchers { // the object that was there
					<-arrived
				}
				b.ResetTimer()
				for i := 0; b.Loop(); i++ {
					patch := `{"metadata":{"labels":{"turn":"` + strconv.Itoa(i) + `"}}}`
					a := send(b, client, newRequest(b, shared, http.MethodPatch, endpointsPath(ns, "taken"), []byte(patch), "Content-Type", "application/merge-patch+json"))
					checkCode(b, a, http.StatusOK, "")
					for range watchers {
						<-arrived
					}
				}
			})
		}
	}
}

// watchInBackground tells of each event that arrives, until the benchmark ends.
func watchInBackground(b *testing.B, ns string, f form, arrived chan<- struct{}) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	client := newClient(b, shared, true)
	req := newRequest(b, shared, http.MethodGet, endpointsPath(ns, "")+"?watch=1"+f.query, nil, f.headers...)
	done := make(chan struct{})
	b.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		resp, err := client.Do(req.WithContext(ctx))
		if err != nil {
			b.Error(err)
			return
		}
		defer resp.Body.Close()
		var body io.Reader = resp.Body
		if resp.Header.Get("Content-Encoding") == "gzip" {
			if body, err = gzip.NewReader(body); err != nil {
				b.Error(err)
				return
			}
		}
		next := readsLines(body)
		if f.name == "protobuf" {
			next = readsFrames(body)
		}
		for next() == nil {
			select {
			case arrived <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// readsLines returns what reads one line of JSON after the other.
func readsLines(body io.Reader) (next func() error) {
	lines := bufio.NewReaderSize(body, 1<<20)
	return func() error {
		_, err := lines.ReadSlice('\n')
		return err
	}
}

// readsFrames returns what reads one message of protobuf after the other.
func readsFrames(body io.Reader) (next func() error) {
	frames, buf := framer.NewLengthDelimitedFrameReader(io.NopCloser(body)), make([]byte, 1<<20)
	return func() error {
		_, err := frames.Read(buf)
		return err
	}
}

// BenchmarkRejected is that of a token beyond its limit.
func BenchmarkRejected(b *testing.B) {
	var sent []byte
	benchmark(b, http.StatusTooManyRequests, func(b *testing.B, ns string, addresses, i int) *http.Request {
		if i == 0 {
			sent = addressed("new", addresses)
		}
		return newRequest(b, shared, http.MethodPost, endpointsPath(ns, ""), sent, "X-Auth-Token", spentToken)
	})
}
