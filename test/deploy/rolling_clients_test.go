package deploy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// countingTransport counts what goes over the network, before the client retries anything.
type countingTransport struct {
	http.RoundTripper
	r *rolling
}

func (c countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	what := req.Method
	switch {
	case req.URL.Query().Get("sendInitialEvents") == "true": // which is how informers list
		what = "LIST"
	case req.Method == http.MethodGet && req.URL.Query().Has("watch"):
		what = "WATCH"
	case req.Method == http.MethodGet && filepath.Base(req.URL.Path) == "endpoints":
		what = "LIST"
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.counts[what]++
	switch {
	case err != nil && req.Context().Err() == nil:
		c.r.counts[what+" failed on the way"]++
	case err == nil && resp.StatusCode >= 400:
		c.r.counts[fmt.Sprintf("%s answered with %d", what, resp.StatusCode)]++
	}
	return resp, err
}

// client returns a client with connections of its own, as another process would have them.
func (r *rolling) client(t *testing.T) typedcorev1.EndpointsInterface {
	t.Helper()
	config := &rest.Config{
		Host: "https://" + hostname, BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAFile: r.caFile},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.balancer.Addr().String())
		},
		WrapTransport: func(next http.RoundTripper) http.RoundTripper { return countingTransport{next, r} },
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(httpClient.CloseIdleConnections)
	client, err := typedcorev1.NewForConfigAndClient(config, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return client.Endpoints("default")
}

// group is that of the object that a watcher selects besides the last one.
func (r *rolling) group(watcher int) string { return strconv.Itoa(watcher % *rollingObjects) }

// selector returns a watcher's; "" selects everything.
func (r *rolling) selector(watcher int) string {
	if !*rollingNarrow {
		return ""
	}
	return fmt.Sprintf("%s in (%s,%s)", groupLabel, r.group(watcher), lastObject)
}

// seen is what one watcher has seen: each version once, and newer than the one before.
type seen struct {
	versions int
	sum      uint64 // of them and their order
	last     int64
}

func (s *seen) see(version int64) error {
	if version <= s.last {
		return fmt.Errorf("version %d came after version %d", version, s.last)
	}
	s.versions, s.last, s.sum = s.versions+1, version, s.sum*1099511628211+uint64(version)
	return nil
}

// watch watches from a version on until it has seen the last object, and goes on where a watch has
// ended.
func (r *rolling) watch(ctx context.Context, client typedcorev1.EndpointsInterface, selector, from string, s *seen) {
	s.last, _ = strconv.ParseInt(from, 10, 64)
	for ctx.Err() == nil {
		w, err := client.Watch(ctx, metav1.ListOptions{LabelSelector: selector, ResourceVersion: from, AllowWatchBookmarks: true})
		if err != nil {
			if ctx.Err() == nil {
				r.fail("a watch: %w", err)
			}
			return
		}
		for event := range w.ResultChan() {
			object, ok := event.Object.(*corev1.Endpoints)
			if !ok {
				r.fail("a watch from %s: %s %v", from, event.Type, event.Object)
				w.Stop()
				return
			}
			version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
			if err == nil && event.Type != watch.Bookmark {
				err = s.see(version)
			}
			if err != nil {
				r.fail("a watch from %s: %w", from, err)
			}
			if from = object.ResourceVersion; object.Name == lastObject {
				w.Stop()
				return
			}
		}
	}
}

// inform runs an informer until it has seen the last object.
func (r *rolling) inform(ctx context.Context, client typedcorev1.EndpointsInterface, selector string, s *seen) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	see := func(obj any) {
		object := obj.(*corev1.Endpoints)
		version, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
		if err == nil {
			err = s.see(version)
		}
		if err != nil && !r.abrupt {
			r.fail("an informer: %w", err)
		}
		if object.Name == lastObject {
			cancel()
		}
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				opts.LabelSelector = selector
				return client.List(ctx, opts)
			},
			WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
				opts.LabelSelector = selector
				return client.Watch(ctx, opts)
			},
		},
		ObjectType: &corev1.Endpoints{},
		Handler:    cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, obj any) { see(obj) }},
	})
	controller.RunWithContext(ctx)
}

// keepWriting writes at the rate until ctx ends, and waits for the answers.
func (r *rolling) keepWriting(ctx, end context.Context, client typedcorev1.EndpointsInterface) {
	var writing sync.WaitGroup
	defer writing.Wait()
	ticks := time.NewTicker(time.Second / time.Duration(*rollingWrites))
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-end.Done():
			return
		case <-ticks.C:
			writing.Go(func() {
				r.writeOne(ctx, client, fmt.Sprint("object-", n%*rollingObjects), strconv.Itoa(n%*rollingObjects), n)
			})
		}
	}
}

func (r *rolling) writeOne(ctx context.Context, client typedcorev1.EndpointsInterface, name, group string, n int) {
	began := time.Now()
	object := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{groupLabel: group}, Annotations: map[string]string{"write": strconv.Itoa(n)},
	}}
	written, err := client.Update(ctx, object, metav1.UpdateOptions{}) // creates it the first time
	if err != nil {
		r.fail("write %d: %w", n, err)
		return
	}
	version, err := strconv.ParseInt(written.ResourceVersion, 10, 64)
	if err != nil {
		r.fail("write %d: %w", n, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes, r.took = append(r.writes, write{version, group}), append(r.took, time.Since(began))
}
