package mirroring

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is where a writer sends its requests: it changes when a server starts again.
type endpoint struct {
	url, token string
	client     *http.Client
}

// writer writes both views of a few names at random.
type writer struct {
	random  *rand.Rand
	at      *atomic.Pointer[endpoint]
	answers *answers
}

// answers are how many there were.
type answers struct {
	byCode [600]atomic.Int64 // by status code; those without one at 0
	left   atomic.Int64      // how many more are enough
	enough chan struct{}     // closed once there are; nil if left is 0 from the start
}

func (a *answers) add(code int) {
	a.byCode[code].Add(1)
	if a.left.Add(-1) == 0 {
		close(a.enough)
	}
}

func (a *answers) String() string {
	var counts []string
	for code := range a.byCode {
		if n := a.byCode[code].Load(); n > 0 {
			counts = append(counts, fmt.Sprintf("%d: %d", code, n))
		}
	}
	return strings.Join(counts, ", ")
}

func (w *writer) name() string { return string(rune('a' + w.random.IntN(4))) }

// run sends n requests.
func (w *writer) run(ctx context.Context, t *testing.T, n int) {
	for range n {
		if ctx.Err() != nil {
			return
		}
		w.step(ctx, t)
	}
}

func (w *writer) step(ctx context.Context, t *testing.T) {
	namespace := w.pick("default", "kube-public")
	core, discovery := "/api/v1/namespaces/"+namespace, "/apis/discovery.k8s.io/v1/namespaces/"+namespace
	name := w.name()
	switch w.random.IntN(26) {
	case 0, 1, 2, 3, 4, 5:
		w.send(ctx, t, http.MethodPut, core+"/endpoints/"+name, w.endpoints(name))
	case 6, 7:
		w.send(ctx, t, http.MethodDelete, core+"/endpoints/"+name, "")
	case 8, 9, 10:
		w.send(ctx, t, http.MethodPut, core+"/services/"+name, w.service(name))
	case 11:
		w.send(ctx, t, http.MethodDelete, core+"/services/"+name, "")
	case 12:
		w.send(ctx, t, http.MethodPatch, core+"/endpoints/"+name, fmt.Sprintf(`{"metadata":{"labels":{"x":"%d"}}}`, w.random.IntN(9)))
	case 13, 14, 15:
		slice := name + "-" + w.name()
		w.send(ctx, t, http.MethodPost, discovery+"/endpointslices", w.slice(slice))
		w.send(ctx, t, http.MethodPut, discovery+"/endpointslices/"+slice, w.slice(slice))
	case 16, 17:
		w.send(ctx, t, http.MethodDelete, discovery+"/endpointslices/"+name+"-"+w.name(), "")
	case 18, 19:
		w.hold(ctx, t, w.pick(core+"/endpoints/"+name, core+"/services/"+name, discovery+"/endpointslices/"+name+"-"+w.name()))
	case 20, 21:
		w.send(ctx, t, apply, core+"/endpoints/"+name, `{"apiVersion":"v1","kind":"Endpoints",`+w.endpoints(name)[1:])
	case 22:
		slice := name + "-" + w.name()
		w.send(ctx, t, apply, discovery+"/endpointslices/"+slice, `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice",`+w.slice(slice)[1:])
	case 23:
		w.send(ctx, t, http.MethodPost, discovery+"/endpointslices", strings.Replace(w.slice(name), `"name":`, `"generateName":`, 1))
	case 24:
		w.anySlice(ctx, t, discovery+"/endpointslices")
	default:
		w.send(ctx, t, http.MethodDelete, discovery+"/endpointslices?labelSelector=kubernetes.io/service-name="+name, "")
	}
}

// hold has a finalizer keep an object that is deleted, and lets go of it, at random.
func (w *writer) hold(ctx context.Context, t *testing.T, path string) {
	w.send(ctx, t, http.MethodPatch, path, `{"metadata":{"finalizers":["a.example/b"]}}`)
	if w.random.IntN(2) == 0 {
		w.send(ctx, t, http.MethodDelete, path, "")
	}
	w.send(ctx, t, http.MethodPatch, path, `{"metadata":{"finalizers":null}}`)
}

// anySlice deletes or changes a slice, which may be a mirror.
func (w *writer) anySlice(ctx context.Context, t *testing.T, path string) {
	var list discoveryv1.EndpointSliceList
	if code, body := w.send(ctx, t, http.MethodGet, path, ""); code != http.StatusOK || json.Unmarshal(body, &list) != nil || len(list.Items) == 0 {
		return
	}
	name := list.Items[w.random.IntN(len(list.Items))].Name
	if w.random.IntN(2) == 0 {
		w.send(ctx, t, http.MethodDelete, path+"/"+name, "")
		return
	}
	w.send(ctx, t, http.MethodPatch, path+"/"+name, `{"metadata":{"labels":{"kubernetes.io/service-name":"`+w.name()+`"}}}`)
}

// addresses are at least so many, and up to three more.
func (w *writer) addresses(field, ip string, least int) string {
	var all []string
	for range least + w.random.IntN(4) {
		all = append(all, fmt.Sprintf(ip, 1+w.random.IntN(6)))
	}
	return `"` + field + `":[` + strings.Join(all, ",") + `]`
}

func (w *writer) pick(values ...string) string { return values[w.random.IntN(len(values))] }

func (w *writer) ports() string {
	return `"ports":[` + w.pick(`{"name":"http","port":80}`, `{"name":"http","port":8080}`, `{"name":"dns","port":53,"protocol":"UDP"}`) + `,{"name":"metrics","port":9100}]`
}

func (w *writer) endpoints(name string) string {
	var subsets []string
	for range w.random.IntN(3) {
		subsets = append(subsets, "{"+w.addresses("addresses", `{"ip":"10.0.0.%d"}`, 1)+","+w.addresses("notReadyAddresses", w.pick(`{"ip":"10.0.0.%d"}`, `{"ip":"2001:db8::%d"}`), 0)+","+w.ports()+"}")
	}
	labels := ""
	if w.random.IntN(5) == 0 {
		labels = `,"labels":{"endpointslice.kubernetes.io/skip-mirror":"true"}`
	}
	return `{"metadata":{"name":"` + name + `"` + labels + `},"subsets":[` + strings.Join(subsets, ",") + `]}`
}

func (w *writer) service(name string) string {
	selector := ""
	if w.random.IntN(4) == 0 {
		selector = `,"selector":{"app":"a"}`
	}
	return fmt.Sprintf(`{"metadata":{"name":"%s","labels":{"y":"%d"}},"spec":{"clusterIP":"None"%s}}`, name, w.random.IntN(5), selector)
}

func (w *writer) slice(name string) string {
	return `{"metadata":{"name":"` + name + `","labels":{"kubernetes.io/service-name":"` + w.name() + `"}},"addressType":"IPv4",` +
		w.addresses("endpoints", `{"addresses":["10.0.1.%d"],"conditions":{"ready":`+fmt.Sprint(w.random.IntN(2) == 0)+`}}`, 0) + "," + w.ports() + "}"
}

// apply stands for the PATCH of a server-side apply.
const apply = "APPLY"

// send sends a request; an outcome that is not among those of a server that may be killed at any
// time, or that refuses what contradicts, fails the test.
func (w *writer) send(ctx context.Context, t testing.TB, method, path, body string) (code int, answer []byte) {
	at := w.at.Load()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	contentType := map[string]string{http.MethodPatch: "application/merge-patch+json", apply: "application/apply-patch+yaml"}[method]
	if method == apply {
		method, path = http.MethodPatch, path+"?force=true&fieldManager=m"+w.pick("1", "2")
	}
	req, err := http.NewRequestWithContext(ctx, method, at.url+path, bytes.NewBufferString(body))
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+at.token)
	req.Header.Set("Content-Type", cmp.Or(contentType, "application/json"))
	resp, err := at.client.Do(req)
	if err != nil {
		w.answers.add(0)
		return 0, nil
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(resp.Body)
	w.answers.add(resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
	default:
		t.Errorf("%s %s %s: %d %s", method, path, body, resp.StatusCode, answer)
	}
	return resp.StatusCode, answer
}
