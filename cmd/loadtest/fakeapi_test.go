package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeAPI answers like an API server that has Endpoints and namespaces, in memory.
type fakeAPI struct {
	*httptest.Server
	// answer is asked before each request; true means that it has answered. Nil: never.
	answer func(w http.ResponseWriter, r *http.Request) bool

	mu         sync.Mutex
	namespaces map[string]map[string]string // labels by name
	objects    map[string]map[string]any
	version    int
	events     []fakeEvent
	changed    chan struct{}  // closed at the next event
	tokens     map[string]int // requests by token
	deleted    []string       // paths of DELETE
}

type fakeEvent struct {
	version int
	line    []byte
}

// newFakeAPI starts a server with TLS that ends with the test.
func newFakeAPI(t *testing.T, namespaces ...string) *fakeAPI {
	f := &fakeAPI{
		namespaces: map[string]map[string]string{}, objects: map[string]map[string]any{}, version: 1,
		changed: make(chan struct{}), tokens: map[string]int{},
	}
	for _, name := range namespaces {
		f.namespaces[name] = map[string]string{}
	}
	f.Server = httptest.NewUnstartedServer(f)
	f.EnableHTTP2 = true
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that a client gave up
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]++
	f.mu.Unlock()
	if f.answer != nil && f.answer(w, r) {
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api v1 namespaces NS endpoints NAME
	switch {
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"gitVersion":"v1.2.3-fake"}`)
	case len(parts) == 3 || len(parts) == 4:
		f.serveNamespace(w, r, parts[3:])
	case r.URL.Query().Get("watch") != "":
		f.watch(w, r)
	default:
		f.serveObject(w, r, parts[5:])
	}
}

func (f *fakeAPI) serveNamespace(w http.ResponseWriter, r *http.Request, name []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		var body struct {
			Metadata struct {
				Name   string
				Labels map[string]string
			}
		}
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			writeStatus(w, http.StatusBadRequest, "BadRequest", "no JSON")
			return
		}
		f.namespaces[body.Metadata.Name] = body.Metadata.Labels
		w.WriteHeader(http.StatusCreated)
	case f.namespaces[name[0]] == nil:
		writeStatus(w, http.StatusNotFound, "NotFound", "namespace not found")
		return
	case r.Method == http.MethodDelete:
		delete(f.namespaces, name[0])
		f.deleted = append(f.deleted, r.URL.Path)
	case r.Method == http.MethodGet:
		writeObject(w, http.StatusOK, map[string]any{"metadata": map[string]any{"labels": f.namespaces[name[0]]}, "status": map[string]any{"phase": "Active"}})
		return
	}
	fmt.Fprint(w, `{"kind":"Namespace"}`)
}

func (f *fakeAPI) serveObject(w http.ResponseWriter, r *http.Request, name []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body map[string]any
	if r.ContentLength > 0 && json.NewDecoder(r.Body).Decode(&body) != nil {
		writeStatus(w, http.StatusBadRequest, "BadRequest", "no JSON")
		return
	}
	if len(name) == 0 {
		f.serveCollection(w, r, body)
		return
	}
	old, ok := f.objects[name[0]]
	switch {
	case !ok:
		writeStatus(w, http.StatusNotFound, "NotFound", name[0]+" not found")
	case r.Method == http.MethodGet:
		writeObject(w, http.StatusOK, old)
	case r.Method == http.MethodDelete:
		f.deleted = append(f.deleted, r.URL.Path)
		delete(f.objects, name[0])
		writeObject(w, http.StatusOK, f.change("DELETED", old, nil))
	default:
		changed := f.change("MODIFIED", old, body)
		f.objects[name[0]] = changed
		writeObject(w, http.StatusOK, changed)
	}
}

func (f *fakeAPI) serveCollection(w http.ResponseWriter, r *http.Request, body map[string]any) {
	switch r.Method {
	case http.MethodPost:
		name := body["metadata"].(map[string]any)["name"].(string)
		if f.objects[name] != nil {
			writeStatus(w, http.StatusConflict, "AlreadyExists", name+" exists")
			return
		}
		f.objects[name] = f.change("ADDED", nil, body)
		writeObject(w, http.StatusCreated, f.objects[name])
	case http.MethodDelete:
		f.deleted = append(f.deleted, r.URL.Path+"?"+r.URL.RawQuery)
		clear(f.objects)
	default:
		writeObject(w, http.StatusOK, map[string]any{
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(f.version)}, "items": slices.Collect(maps.Values(f.objects)),
		})
	}
}

// change makes the next version of an object, by a whole body or a merge patch of its
// annotations, and tells the watchers.
func (f *fakeAPI) change(kind string, old, body map[string]any) map[string]any {
	f.version++
	changed, metadata := map[string]any{}, map[string]any{}
	for _, part := range []map[string]any{old, body} {
		maps.Copy(changed, part)
		if m, ok := part["metadata"].(map[string]any); ok {
			maps.Copy(metadata, m)
		}
	}
	metadata["resourceVersion"] = strconv.Itoa(f.version)
	changed["metadata"] = metadata
	f.emit(kind, changed)
	return changed
}

func (f *fakeAPI) emit(kind string, object map[string]any) {
	var fields any = map[string]any{"type": kind, "object": object} // in the order of the alphabet
	if f.version%2 == 0 {
		fields = struct {
			Type   string         `json:"type"`
			Object map[string]any `json:"object"`
		}{kind, object}
	}
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	f.events = append(f.events, fakeEvent{f.version, append(line, '\n')})
	close(f.changed)
	f.changed = make(chan struct{})
}

// watch streams the events after a version until the client goes.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	version, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		writeStatus(w, http.StatusBadRequest, "BadRequest", "no resourceVersion")
		return
	}
	body, flush := io.Writer(w), w.(http.Flusher).Flush
	if r.Header.Get("Accept-Encoding") == "gzip" {
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		body, flush = packed, func() { _ = packed.Flush(); w.(http.Flusher).Flush() }
	}
	w.WriteHeader(http.StatusOK)
	for {
		f.mu.Lock()
		changed := f.changed
		at, _ := slices.BinarySearchFunc(f.events, version+1, func(e fakeEvent, v int) int { return e.version - v })
		fresh := f.events[at:]
		f.mu.Unlock()
		for _, e := range fresh {
			version = e.version
			_, _ = body.Write(e.line) // the client may be gone
		}
		flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeAPI) count(token string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tokens[token]
}

func writeObject(w http.ResponseWriter, code int, object map[string]any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // the client may be gone
}

func writeStatus(w http.ResponseWriter, code int, reason, message string) {
	writeObject(w, code, map[string]any{"kind": "Status", "reason": reason, "message": message, "code": code})
}

// isLoad reports whether a request is one of the load: not of what is done before and after
// it, and no watch.
func isLoad(r *http.Request) bool {
	query := r.URL.Query()
	setUp := strings.Count(r.URL.Path, "/") < 5 || query.Get("limit") == "1" || query.Get("labelSelector") != ""
	return !setUp && query.Get("watch") == "" && r.Header.Get("X-Vegeta-Seq") != ""
}
