package views

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// Writer writes both views of a few names at random.
type Writer struct {
	Random     *rand.Rand
	Namespaces []string
	// Send sends a request, and returns the answer; its code is 0 without one.
	Send func(ctx context.Context, method, path, contentType, body string) (code int, answer []byte)
}

func (w *Writer) name() string { return string(rune('a' + w.Random.IntN(4))) }

// Step sends a request, or a few that belong together.
func (w *Writer) Step(ctx context.Context) {
	namespace := w.pick(w.Namespaces...)
	core, discovery := "/api/v1/namespaces/"+namespace, "/apis/discovery.k8s.io/v1/namespaces/"+namespace
	name := w.name()
	switch w.Random.IntN(26) {
	case 0, 1, 2, 3, 4, 5:
		w.send(ctx, http.MethodPut, core+"/endpoints/"+name, w.endpoints(name))
	case 6, 7:
		w.send(ctx, http.MethodDelete, core+"/endpoints/"+name, "")
	case 8, 9, 10:
		w.send(ctx, http.MethodPut, core+"/services/"+name, w.service(name))
	case 11:
		w.send(ctx, http.MethodDelete, core+"/services/"+name, "")
	case 12:
		w.send(ctx, http.MethodPatch, core+"/endpoints/"+name, fmt.Sprintf(`{"metadata":{"labels":{"x":"%d"}}}`, w.Random.IntN(9)))
	case 13, 14, 15:
		slice := name + "-" + w.name()
		w.send(ctx, http.MethodPost, discovery+"/endpointslices", w.slice(slice))
		w.send(ctx, http.MethodPut, discovery+"/endpointslices/"+slice, w.slice(slice))
	case 16, 17:
		w.send(ctx, http.MethodDelete, discovery+"/endpointslices/"+name+"-"+w.name(), "")
	case 18, 19:
		w.hold(ctx, w.pick(core+"/endpoints/"+name, core+"/services/"+name, discovery+"/endpointslices/"+name+"-"+w.name()))
	case 20, 21:
		w.apply(ctx, core+"/endpoints/"+name, `{"apiVersion":"v1","kind":"Endpoints",`+w.endpoints(name)[1:])
	case 22:
		slice := name + "-" + w.name()
		w.apply(ctx, discovery+"/endpointslices/"+slice, `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice",`+w.slice(slice)[1:])
	case 23:
		w.send(ctx, http.MethodPost, discovery+"/endpointslices", strings.Replace(w.slice(name), `"name":`, `"generateName":`, 1))
	case 24:
		w.anySlice(ctx, discovery+"/endpointslices")
	default:
		w.send(ctx, http.MethodDelete, discovery+"/endpointslices?labelSelector=kubernetes.io/service-name="+name, "")
	}
}

// hold has a finalizer keep an object that is deleted, and lets go of it, at random.
func (w *Writer) hold(ctx context.Context, path string) {
	w.send(ctx, http.MethodPatch, path, `{"metadata":{"finalizers":["a.example/b"]}}`)
	if w.Random.IntN(2) == 0 {
		w.send(ctx, http.MethodDelete, path, "")
	}
	w.send(ctx, http.MethodPatch, path, `{"metadata":{"finalizers":null}}`)
}

// anySlice deletes or changes a slice, which may be a mirror.
func (w *Writer) anySlice(ctx context.Context, path string) {
	var list discoveryv1.EndpointSliceList
	if code, body := w.send(ctx, http.MethodGet, path, ""); code != http.StatusOK || json.Unmarshal(body, &list) != nil || len(list.Items) == 0 {
		return
	}
	name := list.Items[w.Random.IntN(len(list.Items))].Name
	if w.Random.IntN(2) == 0 {
		w.send(ctx, http.MethodDelete, path+"/"+name, "")
		return
	}
	w.send(ctx, http.MethodPatch, path+"/"+name, `{"metadata":{"labels":{"kubernetes.io/service-name":"`+w.name()+`"}}}`)
}

// addresses are at least so many, and up to three more.
func (w *Writer) addresses(field, ip string, least int) string {
	var all []string
	for range least + w.Random.IntN(4) {
		all = append(all, fmt.Sprintf(ip, 1+w.Random.IntN(6)))
	}
	return `"` + field + `":[` + strings.Join(all, ",") + `]`
}

func (w *Writer) pick(values ...string) string { return values[w.Random.IntN(len(values))] }

func (w *Writer) ports() string {
	return `"ports":[` + w.pick(`{"name":"http","port":80}`, `{"name":"http","port":8080}`, `{"name":"dns","port":53,"protocol":"UDP"}`) + `,{"name":"metrics","port":9100}]`
}

func (w *Writer) endpoints(name string) string {
	var subsets []string
	for range w.Random.IntN(3) {
		subsets = append(subsets, "{"+w.addresses("addresses", `{"ip":"10.0.0.%d"}`, 1)+","+w.addresses("notReadyAddresses", w.pick(`{"ip":"10.0.0.%d"}`, `{"ip":"2001:db8::%d"}`), 0)+","+w.ports()+"}")
	}
	labels := ""
	if w.Random.IntN(5) == 0 {
		labels = `,"labels":{"endpointslice.kubernetes.io/skip-mirror":"true"}`
	}
	return `{"metadata":{"name":"` + name + `"` + labels + `},"subsets":[` + strings.Join(subsets, ",") + `]}`
}

func (w *Writer) service(name string) string {
	selector := ""
	if w.Random.IntN(4) == 0 {
		selector = `,"selector":{"app":"a"}`
	}
	return fmt.Sprintf(`{"metadata":{"name":"%s","labels":{"y":"%d"}},"spec":{"clusterIP":"None"%s}}`, name, w.Random.IntN(5), selector)
}

func (w *Writer) slice(name string) string {
	return `{"metadata":{"name":"` + name + `","labels":{"kubernetes.io/service-name":"` + w.name() + `"}},"addressType":"IPv4",` +
		w.addresses("endpoints", `{"addresses":["10.0.1.%d"],"conditions":{"ready":`+fmt.Sprint(w.Random.IntN(2) == 0)+`}}`, 0) + "," + w.ports() + "}"
}

func (w *Writer) send(ctx context.Context, method, path, body string) (code int, answer []byte) {
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	return w.Send(ctx, method, path, contentType, body)
}

// apply applies an object as one of two field managers.
func (w *Writer) apply(ctx context.Context, path, body string) {
	w.Send(ctx, http.MethodPatch, path+"?force=true&fieldManager=m"+w.pick("1", "2"), "application/apply-patch+yaml", body)
}
