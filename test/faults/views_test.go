package faults

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/berth-project/berth/test/views"
)

const (
	// viewWriters write Endpoints, Services and EndpointSlices, whose views must agree.
	viewWriters = 2
	// viewsOf ends the name of the namespace where they do, beside that of a collection.
	viewsOf = "-views"
)

// beginViews writes Endpoints that are mirrored, and a slice that Endpoints are made of, so that there is
// something to check however little the writers write.
func (l *load) beginViews(t *testing.T) {
	t.Helper()
	core, discovery := "/api/v1/namespaces/"+l.namespace+viewsOf, "/apis/discovery.k8s.io/v1/namespaces/"+l.namespace+viewsOf
	for _, object := range []struct{ path, body string }{
		{core + "/services", `{"metadata":{"name":"a"},"spec":{"clusterIP":"None"}}`},
		{core + "/endpoints", `{"metadata":{"name":"a"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"http","port":80}]}]}`},
		{core + "/services", `{"metadata":{"name":"b"},"spec":{"clusterIP":"None"}}`},
		{discovery + "/endpointslices", `{"metadata":{"name":"b-1","labels":{"kubernetes.io/service-name":"b"}},"addressType":"IPv4","endpoints":[{"addresses":["10.0.1.1"]}],"ports":[{"name":"http","port":80}]}`},
	} {
		await(t, "there is "+object.body, func(ctx context.Context) error {
			if code, answer := l.checked(ctx, l.servers[0], http.MethodPost, object.path, "application/json", []byte(object.body), false); code != http.StatusCreated && code != http.StatusConflict {
				return fmt.Errorf("it is answered with %d %s", code, answer)
			}
			return nil
		})
	}
}

// writeViews writes at random until ctx ends.
func (l *load) writeViews(ctx context.Context, writer int) {
	random := l.random(2000 + writer)
	w := views.Writer{Random: random, Namespaces: []string{l.namespace + viewsOf}, Send: func(ctx context.Context, method, path, contentType, body string) (int, []byte) {
		ctx, cancel := context.WithTimeout(ctx, clientTimeout)
		defer cancel()
		// Nobody may write what the server derives.
		return l.checked(ctx, l.servers[random.IntN(len(l.servers))], method, path, contentType, []byte(body), method != http.MethodGet)
	}}
	for pause(ctx, thinking) {
		w.Step(context.WithoutCancel(ctx))
	}
}
