package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/berth-project/berth/test/apitest"
)

// A client that accepts gzip gets the same, compressed: lists, large objects and watches.
func TestCompressedAnswersAreTheSame(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		for i := range 10 {
			checkCode(t, send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), addressed(fmt.Sprintf("e-%d", i), 100*i+1))), 201, "")
		}
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), addressed("large", 10_000))), 201, "")
		for _, path := range []string{endpointsPath(ns, ""), endpointsPath(ns, "large")} {
			plain := send(t, client, newRequest(t, shared, http.MethodGet, path, nil))
			for range 2 { // what is compressed once is used again
				compressed := send(t, client, newRequest(t, shared, http.MethodGet, path, nil, "Accept-Encoding", "gzip"))
				if got := compressed.header.Get("Content-Encoding"); got != "gzip" {
					t.Fatalf("%s: Content-Encoding is %q", path, got)
				}
				if got := unzip(t, compressed.body); !bytes.Equal(got, plain.body) {
					t.Errorf("%s: unzipped %d bytes, plain are %d", path, len(got), len(plain.body))
				}
			}
		}
	})
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Every event of a compressed watch can be read before the next one happens, whatever the
// form.
func TestCompressedWatches(t *testing.T) {
	for _, accept := range []string{"application/json", "application/json;as=Table;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"} {
		t.Run(accept, func(t *testing.T) {
			eachProtocol(t, shared, func(t *testing.T, client *http.Client) { watchCompressed(t, client, accept) })
		})
	}
}

func watchCompressed(t *testing.T, client *http.Client, accept string) {
	t.Helper()
	ns := newNamespace(t, shared)
	resp, err := client.Do(newRequest(t, shared, http.MethodGet, endpointsPath(ns, "")+"?watch=1", nil, "Accept-Encoding", "gzip", "Accept", accept))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding is %q", got)
	}
	unzipped, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := json.NewDecoder(unzipped)
	next := func(want string) {
		t.Helper()
		var event struct {
			Type   string
			Object struct {
				Metadata struct{ Name, ResourceVersion string }
			}
		}
		if err := events.Decode(&event); err != nil || event.Type != want {
			t.Fatalf("got %q, %v, want %q", event.Type, err, want)
		}
	}
	for i, addresses := range []int{1, 10, 1000} {
		name := fmt.Sprintf("e-%d", i)
		for _, step := range []struct {
			method, path string
			body         []byte
			want         string
		}{
			{http.MethodPost, endpointsPath(ns, ""), addressed(name, addresses), "ADDED"},
			{http.MethodPut, endpointsPath(ns, name), addressed(name, addresses+1), "MODIFIED"},
			{http.MethodDelete, endpointsPath(ns, name), nil, "DELETED"},
		} {
			if a := send(t, client, newRequest(t, shared, step.method, step.path, step.body, "X-Auth-Token", apitest.Token)); a.code > 201 {
				t.Fatalf("%d %s", a.code, a.body)
			}
			next(step.want)
		}
	}
}

func TestCompressedWatchesEndProperly(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		for range 2 { // the connection serves a second one
			a := send(t, client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, "")+"?watch=1&timeoutSeconds=1", nil, "Accept-Encoding", "gzip"))
			if got := unzip(t, a.body); len(got) > 0 {
				t.Errorf("read %s", got)
			}
		}
	})
}
