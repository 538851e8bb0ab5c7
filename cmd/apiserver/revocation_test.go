package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/framer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/test/harness"
)

// watching is a watch that has begun.
type watching struct {
	name string
	next func() (metav1.WatchEvent, error)
}

// readsEvents returns what reads one event of a body after the other.
func readsEvents(body io.Reader, protobuf bool) func() (metav1.WatchEvent, error) {
	decoder, frames, buf := json.NewDecoder(body), framer.NewLengthDelimitedFrameReader(io.NopCloser(body)), make([]byte, 1<<20)
	return func() (event metav1.WatchEvent, err error) {
		if !protobuf {
			return event, decoder.Decode(&event)
		}
		n, err := frames.Read(buf)
		if err != nil {
			return event, err
		}
		return event, event.Unmarshal(buf[:n])
	}
}

// watch begins a watch and reads its first event.
func watch(t *testing.T, client *http.Client, url, token, accept, encoding string) watching {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+endpointsPath+"?watch=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", encoding)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	body := io.Reader(resp.Body)
	if encoding == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	w := watching{
		name: fmt.Sprintf("%s, %s, %s, %s", token, resp.Proto, accept, encoding),
		next: readsEvents(body, resp.Header.Get("Content-Type") != "application/json"),
	}
	if event, err := w.next(); err != nil || event.Type != "ADDED" {
		t.Fatalf("%s: the first event is %v, %v", w.name, event, err)
	}
	return w
}

// A watch ends soon after the reload that took away its token, or changed the user of it. One
// of an unchanged token goes on.
func TestRunEndsWatchesOfRevokedTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, path, "admin,root,1,system:masters\nkept,ann,2,\"a,b\"\nremoved,ann,2\nregrouped,bob,3,a\nrenamed,cid,4\nrenumbered,dan,5\n")
	s := runServer(t, func(c *config) { c.TokenAuthFile, c.AuthorizationMode = path, apiserver.ModeAlwaysAllow })
	http2 := caller(t, s.DataDir.PKI().CACert())
	http2.Timeout = 0
	transport := http2.Transport.(*http.Transport).Clone()
	transport.Protocols, transport.TLSClientConfig.NextProtos = new(http.Protocols), nil
	transport.Protocols.SetHTTP1(true)
	t.Cleanup(transport.CloseIdleConnections)
	clients := []*http.Client{http2, {Transport: transport}}
	if code, body := call(t, http2, "POST", s.url+endpointsPath, "admin", `{"metadata":{"name":"first"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	var kept, revoked []watching
	for _, client := range clients {
		kept = append(kept, watch(t, client, s.url, "kept", "application/json", "identity"))
		for _, token := range []string{"removed", "regrouped", "renamed", "renumbered"} {
			for _, accept := range []string{
				"application/json", "application/vnd.kubernetes.protobuf;stream=watch",
				"application/json;as=Table;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
			} {
				for _, encoding := range []string{"identity", "gzip"} {
					revoked = append(revoked, watch(t, client, s.url, token, accept, encoding))
				}
			}
		}
	}

	replace(t, path, "kept,ann,2,\"b,a\"\nregrouped,bob,3,b\nrenamed,eve,4\nrenumbered,dan,6\nadmin,root,1,system:masters\n")
	begun := time.Now()
	for _, w := range revoked {
		event, err := w.next()
		if err != nil || event.Type != "ERROR" {
			t.Errorf("%s: got %v, %v", w.name, event, err)
			continue
		}
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(event.Object.Raw, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if err := apierrors.FromObject(obj); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: got %v", w.name, err)
		}
		if _, err := w.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the error: %v", w.name, err)
		}
	}
	t.Logf("%d watches ended within %v", len(revoked), time.Since(begun))
	if code, body := call(t, http2, "POST", s.url+endpointsPath, "admin", `{"metadata":{"name":"second"}}`); code != http.StatusCreated {
		t.Fatalf("got %d: %s", code, body)
	}
	for _, w := range kept {
		if event, err := w.next(); err != nil || event.Type != "ADDED" {
			t.Errorf("%s: got %v, %v", w.name, event, err)
		}
	}
}

// A byte order mark before the first token belongs to neither the token nor the kubeconfig's.
// Tokens that are short are warned of by their lines, which is no reason to refuse them.
func TestRunTokenFileOfAnEditor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.csv")
	harness.WriteFile(t, path, "\ufeffsh0rt,ann,1,system:masters\nlong-enough-for-anybody,bob,2\n")
	s := runServer(t, func(c *config) { c.TokenAuthFile = path })
	s.expectCode(t, caller(t, s.DataDir.PKI().CACert()), "sh0rt", http.StatusOK)
	if a, err := datadir.ReadKubeconfig(s.DataDir.Kubeconfig()); err != nil || a.Token != "sh0rt" {
		t.Errorf("the kubeconfig has another token (%v)", err)
	}
	s.stderr.Await(t, `"tokens":1,"lines":\[1\]`, s.ended)
	replace(t, path, "long-enough-for-anybody,bob,2\nb,ann,1\nc,ann,1\n")
	s.stderr.Await(t, `"tokens":2,"lines":\[2,3\]`, s.ended)
}
