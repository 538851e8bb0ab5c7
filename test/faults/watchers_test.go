package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/test/history"
)

// endName is the last object of a collection, endWritten and then something else its last states:
// whoever sees that one, or sees it leave, has seen all.
const (
	endName    = "end"
	endWritten = "end/1"
)

// watcher watches at one server after the other.
type watcher struct {
	*load
	selector string
	// runs are what it saw, each from a beginning of its own: it begins again when it is told that
	// what it would have to see is gone.
	runs     [][]history.Connection
	expired  int
	arrived  bool
	position int64
}

// watch watches until the end, or until ctx ends.
func (w *watcher) watch(ctx context.Context, actor int) {
	random := w.random(1000 + actor)
	initial := true
	for ctx.Err() == nil && !w.arrived {
		c := history.Connection{From: w.position, Initial: initial}
		expired := w.connect(ctx, w.servers[random.IntN(len(w.servers))], &c)
		switch complete := !initial || len(c.Changes) > 0 && w.position > 0; {
		case initial && complete:
			w.runs = append(w.runs, []history.Connection{c})
			initial = false
		case complete && len(c.Changes) > 0:
			last := len(w.runs) - 1
			w.runs[last] = append(w.runs[last], c)
		}
		if expired {
			w.expired++
			w.position, initial = 0, true
		}
		pause(ctx, thinking)
	}
}

// connect watches once, and reports whether it was told that its position is gone.
func (w *watcher) connect(ctx context.Context, at *server, c *history.Connection) (expired bool) {
	query := url.Values{"watch": {"true"}, "allowWatchBookmarks": {"true"}, "labelSelector": {w.selector}, "resourceVersion": {strconv.FormatInt(c.From, 10)}}
	if c.Initial {
		query.Set("sendInitialEvents", "true")
		query.Set("resourceVersionMatch", "NotOlderThan")
		query.Del("resourceVersion")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url+"/api/v1/namespaces/"+w.namespace+"/endpoints?"+query.Encode(), nil)
	if err != nil {
		w.fault(err)
		return false
	}
	rotating := w.rotating.Load()
	req.Header.Set("X-Auth-Token", *w.token.Load())
	resp, err := at.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	for {
		var event struct {
			Type   watch.EventType
			Object json.RawMessage
		}
		if resp.StatusCode != http.StatusOK {
			event.Type = watch.Error
			err = decoder.Decode(&event.Object)
		} else {
			err = decoder.Decode(&event)
		}
		switch {
		case err != nil: // it has ended
			return false
		case event.Type == watch.Error:
			return w.refused(event.Object, at, rotating || w.rotating.Load())
		case w.see(c, event.Type, event.Object):
			return false
		}
	}
}

// refused notes the Status that ends a watch, and reports whether it says that the position is gone.
func (w *watcher) refused(body []byte, at *server, rotating bool) (expired bool) {
	var status metav1.Status
	_ = json.Unmarshal(body, &status) // documented says so
	err := documented(int(status.Code), body)
	if err == nil && status.Code == http.StatusUnauthorized && !rotating {
		err = fmt.Errorf("401, but no token was replaced")
	}
	if err != nil {
		w.fault(fmt.Errorf("watch of %q at %s: %w", w.selector, at.name, err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watches[int(status.Code)]++
	return status.Code == http.StatusGone
}

// see notes an event, and reports whether it is the last.
func (w *watcher) see(c *history.Connection, event watch.EventType, body []byte) (last bool) {
	var object corev1.Endpoints
	err := json.Unmarshal(body, &object)
	version, versionErr := strconv.ParseInt(object.ResourceVersion, 10, 64)
	if err != nil || versionErr != nil {
		w.fault(fmt.Errorf("event %s: %.300s", event, body))
		return true
	}
	seen := history.Change{Event: event, Version: version, State: history.StateOf(&object)}
	if event == watch.Bookmark {
		seen.State = history.State{}
	}
	c.Changes = append(c.Changes, seen)
	// Initial events that are incomplete are no position.
	if !c.Initial || event == watch.Bookmark || w.position > 0 {
		w.position = version
	}
	w.arrived = object.Name == endName && w.position > 0 && (event == watch.Deleted || seen.Written == endWritten)
	return w.arrived
}

// verify holds what the watcher saw against the history.
func (w *watcher) verify(all history.History) (faults []error) {
	selector, err := labels.Parse(w.selector)
	if err != nil {
		return []error{err}
	}
	if !w.arrived {
		faults = append(faults, fmt.Errorf("reliable: a watch of %q has come to %d, not to the end", w.selector, w.position))
	}
	for _, connections := range w.runs {
		if err := history.Verify(all, selector, connections); err != nil {
			faults = append(faults, fmt.Errorf("watch of %q: %w", w.selector, err))
		}
	}
	return faults
}
