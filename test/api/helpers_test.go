package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/registry/resources"
	"github.com/berth-project/berth/test/apitest"
)

var (
	scheme = resources.Scheme()
	codecs = serializer.NewCodecFactory(scheme)
)

var mediaTypes = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

func serializerOf(t testing.TB, mediaType string) runtime.Serializer {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatalf("no serializer for %q", mediaType)
	}
	return info.Serializer
}

// encode returns obj in the media type.
func encode(t testing.TB, mediaType string, obj runtime.Object) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := serializerOf(t, mediaType).Encode(obj, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// answer is a response, read whole.
type answer struct {
	code   int
	proto  string
	header http.Header
	body   []byte
}

// decode returns what the answer holds, by its media type.
func decode[T runtime.Object](t testing.TB, a *answer) T {
	t.Helper()
	obj, _, err := serializerOf(t, a.header.Get("Content-Type")).Decode(a.body, nil, nil)
	if err != nil {
		t.Fatalf("%d %q: %v", a.code, a.body, err)
	}
	result, ok := obj.(T)
	if !ok {
		t.Fatalf("got a %T, want a %T: %q", obj, result, a.body)
	}
	return result
}

// eachProtocol runs the test over HTTP/1.1 and over HTTP/2.
func eachProtocol(t *testing.T, server *apitest.Server, test func(t *testing.T, client *http.Client)) {
	t.Helper()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, server, http2)
			if got := send(t, client, newRequest(t, server, http.MethodGet, "/version", nil)); got.proto != name {
				t.Fatalf("the client speaks %s", got.proto)
			}
			test(t, client)
		})
	}
}

func newClient(t testing.TB, server *apitest.Server, http2 bool) *http.Client {
	t.Helper()
	transport := server.Transport(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// startServer starts a server of the test's own, whose log is checked as the shared one's.
func startServer(t testing.TB, cfg apitest.Config) *apitest.Server {
	t.Helper()
	cfg.Logger = zerolog.New(&logs)
	server, err := apitest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Client.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// newRequest makes a request of the admin's. Its headers are pairs of name and value; a
// header without a value is left out.
func newRequest(t testing.TB, server *apitest.Server, method, path string, body []byte, headers ...string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", apitest.Token)
	req.Header.Set("User-Agent", "api-test/1")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" || headers[i+1] == noToken {
			req.Header.Del(headers[i])
		}
	}
	return req
}

func send(t testing.TB, client *http.Client, req *http.Request) *answer {
	t.Helper()
	a, err := try(client, req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func try(client *http.Client, req *http.Request) (*answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the body of a %d: %w", resp.StatusCode, err)
	}
	return &answer{code: resp.StatusCode, proto: resp.Proto, header: resp.Header, body: body}, nil
}

// newNamespace makes a namespace that no other test uses.
func newNamespace(t testing.TB, server *apitest.Server) string {
	t.Helper()
	a := send(t, server.Client, newRequest(t, server, http.MethodPost, "/api/v1/namespaces", []byte(`{"metadata":{"generateName":"test-"}}`)))
	if a.code != http.StatusCreated {
		t.Fatalf("making a namespace: %d %s", a.code, a.body)
	}
	return decode[*corev1.Namespace](t, a).Name
}

func endpointsPath(namespace, name string) string {
	return strings.TrimSuffix("/api/v1/namespaces/"+namespace+"/endpoints/"+name, "/")
}

// body is Endpoints of one address as JSON.
func body(name string) []byte {
	return []byte(`{"metadata":{"name":"` + name + `"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`)
}

// checkCode fails the test unless the answer has this code, and this text in its body.
func checkCode(t testing.TB, a *answer, code int, text string) {
	t.Helper()
	if a.code != code || !strings.Contains(string(a.body), text) {
		t.Fatalf("got %d %s, want %d and %q", a.code, a.body, code, text)
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
