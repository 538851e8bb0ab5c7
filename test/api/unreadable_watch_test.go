package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/test/apitest"
)

// seen is an event: its type, the object's name and revision, and a label of it.
type seen struct {
	kind, name, version, label string
}

// watching is a watch in JSON.
type watching struct{ events *json.Decoder }

func watchEndpoints(t *testing.T, ns, query string) *watching {
	t.Helper()
	resp, err := shared.Client.Do(newRequest(t, shared, http.MethodGet, endpointsPath(ns, "")+"?watch=1"+query, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &watching{json.NewDecoder(resp.Body)}
}

// next is the next event.
func (w *watching) next(t *testing.T) seen {
	t.Helper()
	var event struct {
		Type   string
		Object corev1.Endpoints
	}
	if err := w.events.Decode(&event); err != nil {
		t.Fatal(err)
	}
	return seen{event.Type, event.Object.Name, event.Object.ResourceVersion, event.Object.Labels["x"]}
}

func (w *watching) check(t *testing.T, want ...seen) {
	t.Helper()
	for _, want := range want {
		if got := w.next(t); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// To a watch, an object that becomes unreadable is deleted, and one that becomes readable is
// added, wherever the events come from.
func TestWatchesOfUnreadableValues(t *testing.T) {
	ns := newNamespace(t, shared)
	good := func(x string) []byte { return []byte(value(ns, "a", `,"labels":{"x":"`+x+`"}`)) }
	key := endpointsKey(ns, "a")
	live := watchEndpoints(t, ns, "")
	selecting := watchEndpoints(t, ns, "&labelSelector=x")
	var revisions []int64
	for _, value := range [][]byte{
		[]byte("{"), good("1"), good("2"), []byte("null"), []byte("[]"), good("3"), []byte(""),
	} {
		revisions = append(revisions, store(t, key, value))
	}
	forget(key)
	last := store(t, endpointsKey(ns, "z"), []byte(value(ns, "z", `,"labels":{"x":"y"}`)))
	at := func(i int) string { return fmt.Sprint(revisions[i]) }
	want := []seen{
		{"ADDED", "a", at(1), "1"}, {"MODIFIED", "a", at(2), "2"}, {"DELETED", "a", at(3), "2"},
		{"ADDED", "a", at(5), "3"}, {"DELETED", "a", at(6), "3"}, {"ADDED", "z", fmt.Sprint(last), "y"},
	}
	live.check(t, want...)
	selecting.check(t, want...)
	watchEndpoints(t, ns, fmt.Sprintf("&resourceVersion=%d", revisions[0]-1)).check(t, want...)
	watchEndpoints(t, ns, fmt.Sprintf("&resourceVersion=%d", revisions[3])).check(t, want[3:]...)
	for _, form := range []string{
		runtime.ContentTypeProtobuf + ";stream=watch", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
	} {
		a := request(t, http.MethodGet, endpointsPath(ns, "")+fmt.Sprintf("?watch=1&timeoutSeconds=1&resourceVersion=%d", revisions[0]-1), "", "Accept", form)
		checkCode(t, a, http.StatusOK, "")
	}
}

// What a watch begins with leaves out what cannot be read.
func TestInitialEventsWithoutUnreadableValues(t *testing.T) {
	ns := newNamespace(t, shared)
	store(t, endpointsKey(ns, "a"), []byte("{"))
	b := store(t, endpointsKey(ns, "b"), []byte(value(ns, "b", "")))
	wanted := seen{"ADDED", "b", fmt.Sprint(b), ""}
	watchEndpoints(t, ns, "").check(t, wanted)
	watchEndpoints(t, ns, "&resourceVersion=0").check(t, wanted)
	list := watchEndpoints(t, ns, "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan")
	list.check(t, wanted)
	if got := list.next(t); got.kind != "BOOKMARK" {
		t.Errorf("got %v, want the bookmark that ends the initial events", got)
	}
}

// A server starts on values that it cannot read, the first namespaces among them.
func TestStartWithUnreadableValues(t *testing.T) {
	dir := t.TempDir()
	first, err := apitest.Start(apitest.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	good := value("default", "good", "")
	for key, text := range map[string]string{
		"/registry/namespaces/kube-public": "\x00", endpointsKey("default", "bad"): "{", endpointsKey("default", "good"): good,
		"/registry/endpoints/stray": good, endpointsKey("default", "a/b"): good,
	} {
		storeIn(t, first.Storage, key, []byte(text))
	}
	first.Client.CloseIdleConnections()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, apitest.Config{DataDir: dir})
	a := send(t, server.Client, newRequest(t, server, http.MethodGet, "/api/v1/endpoints", nil))
	if got := listedNames(t, a); !cmp.Equal(got, []string{"good"}) {
		t.Errorf("listed %q", got)
	}
	checkWarned(t, a, endpointsKey("default", "a/b"), endpointsKey("default", "bad"), "/registry/endpoints/stray")
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, "/readyz", nil)), http.StatusOK, "ok")
	checkReadError(t, send(t, server.Client, newRequest(t, server, http.MethodGet, "/api/v1/namespaces/kube-public", nil)), "/registry/namespaces/kube-public")
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath("default", ""), body("new"))), http.StatusCreated, "")
}
