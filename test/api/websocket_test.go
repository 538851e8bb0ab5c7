package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/test/apitest"
)

// browse begins a watch as a browser does, with the token among the subprotocols.
func browse(t *testing.T, server *apitest.Server, path, token, accept string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{
		TLSClientConfig:  server.Client.Transport.(*http.Transport).TLSClientConfig.Clone(),
		HandshakeTimeout: 30 * time.Second,
		Subprotocols:     []string{"base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token)), "v1.k8s.io"},
	}
	dialer.TLSClientConfig.NextProtos = nil
	header := http.Header{"Origin": {"https://example.com"}, "User-Agent": {"Mozilla/5.0"}}
	if accept != "" {
		header.Set("Accept", accept)
	}
	conn, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(server.URL, "https")+path, header)
	if err != nil {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	t.Cleanup(func() { conn.Close() })
	if conn.Subprotocol() != "v1.k8s.io" {
		t.Errorf("the subprotocol is %q", conn.Subprotocol())
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// nextEvent reads a message, of the type that JSON and protobuf have.
func nextEvent(t *testing.T, conn *websocket.Conn, binary bool) (event string, of *corev1.Endpoints) {
	t.Helper()
	kind, message, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if (kind == websocket.BinaryMessage) != binary {
		t.Errorf("a message of type %d: %q", kind, message)
	}
	var got metav1.WatchEvent
	mediaType := runtime.ContentTypeJSON
	if binary {
		mediaType, err = runtime.ContentTypeProtobuf, got.Unmarshal(message)
	} else {
		err = json.Unmarshal(message, &got)
	}
	if err != nil {
		t.Fatalf("%q: %v", message, err)
	}
	obj, _, err := serializerOf(t, mediaType).Decode(got.Object.Raw, nil, nil)
	if err != nil {
		t.Fatalf("%q: %v", got.Object.Raw, err)
	}
	return got.Type, obj.(*corev1.Endpoints)
}

// Browsers and clients that want WebSockets see every change, in each form that has events, and
// leave the records that others do.
func TestWatchesOverWebSockets(t *testing.T) {
	for accept, binary := range map[string]bool{"": false, runtime.ContentTypeJSON: false, runtime.ContentTypeProtobuf: true} {
		t.Run(accept, func(t *testing.T) {
			ns := newNamespace(t, shared)
			checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("there"))), 201, "")
			conn := browse(t, shared, endpointsPath(ns, "")+"?watch=1", aliceToken, accept)
			if event, of := nextEvent(t, conn, binary); event != string(watch.Added) || of.Name != "there" {
				t.Errorf("got %s %s", event, of.Name)
			}
			checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("new"))), 201, "")
			if event, of := nextEvent(t, conn, binary); event != string(watch.Added) || of.Name != "new" || len(of.Subsets) != 1 {
				t.Errorf("got %s %v", event, of)
			}
			checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodDelete, endpointsPath(ns, "new"), nil)), 200, "")
			if event, of := nextEvent(t, conn, binary); event != string(watch.Deleted) || of.Name != "new" {
				t.Errorf("got %s %s", event, of.Name)
			}
			conn.Close()
			eventually(t, "the line of the watch", func() bool {
				lines := logs.lines(endpointsPath(ns, ""))
				return len(lines) > 0 && strings.Contains(lines[len(lines)-1], `"verb":"watch"`) && strings.Contains(lines[len(lines)-1], `"code":101`)
			})
		})
	}
	a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/metrics", nil))
	if want := `apiserver_request_total{code="101",component="apiserver",dry_run="",group="",resource="endpoints",scope="namespace",subresource="",verb="WATCH",version="v1"}`; !bytes.Contains(a.body, []byte(want)) {
		t.Errorf("the metrics lack %s", want)
	}
}
