package object_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/object"
)

func endpointsType(forms *object.Budget) *object.Type {
	return &object.Type{
		Kind:  corev1.SchemeGroupVersion.WithKind("Endpoints"),
		New:   func() runtime.Object { return &corev1.Endpoints{} },
		Forms: forms,
	}
}

// endpoints are those of a name with so many addresses.
func endpoints(name string, addresses int) *corev1.Endpoints {
	e := &corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "8de0af5a-aabf-4706-87ec-b6fe7e1307d6", Labels: map[string]string{"app": name, "tier": "x"}},
	}
	if addresses > 0 {
		e.Subsets = []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80, Protocol: "TCP"}}}}
	}
	for i := range addresses {
		e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)})
	}
	return e
}

func identity(name string, revision int64) object.Identity {
	return object.Identity{Key: "/registry/endpoints/default/" + name, Namespace: "default", Name: name, Revision: revision, CreateRevision: 3}
}

func mustEncode(t testing.TB, typ *object.Type, obj runtime.Object) []byte {
	t.Helper()
	value, err := typ.Encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func mustRead(t testing.TB, typ *object.Type, name string, revision int64, stored []byte) *object.Object {
	t.Helper()
	o, err := object.Read(typ, identity(name, revision), stored)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// withVersion is what encoding/json makes of an object at a revision.
func withVersion(t testing.TB, e *corev1.Endpoints, revision string) string {
	t.Helper()
	e = e.DeepCopy()
	e.ResourceVersion = revision
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadFinishes(t *testing.T) {
	typ := endpointsType(nil)
	bare := endpoints("a", 0)
	bare.UID, bare.Labels = "", nil
	nested := endpoints("a", 1)
	nested.Labels = map[string]string{"uid": `"uid":"x"`, "resourceVersion": "7"}
	nested.Annotations = map[string]string{"a": `{"uid":"1","resourceVersion":"2"} é "}`}
	for name, e := range map[string]*corev1.Endpoints{
		"plain": endpoints("a", 1), "no uid": bare, "texts like members": nested,
		"S2": endpoints("a", 3000), "zstd": endpoints("a", 20000),
	} {
		value := mustEncode(t, typ, e)
		packed, err := object.Pack(value)
		if err != nil {
			t.Fatal(err)
		}
		if len(value) > 40<<10 && len(packed) > len(value)*2/3 {
			t.Errorf("%s: %d bytes are stored as %d", name, len(value), len(packed))
		}
		o := mustRead(t, typ, "a", 42, packed)
		if diff := cmp.Diff(withVersion(t, e, "42"), string(o.JSON())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
		if diff := cmp.Diff(withVersion(t, e, "9000000000000000000"), string(o.At(9e18).JSON())); diff != "" {
			t.Errorf("%s, at another revision (-want +got)\n%s", name, diff)
		}
		if !o.IsMadeOf(value) || !o.At(7).IsMadeOf(value) || o.IsMadeOf(value[1:]) || o.IsMadeOf([]byte(withVersion(t, e, "42"))) {
			t.Errorf("%s: Holds is wrong", name)
		}
		written, err := object.Written(typ, identity("a", 42), value)
		if err != nil || !bytes.Equal(written.JSON(), o.JSON()) {
			t.Errorf("%s: Written makes %s (%v)", name, written.JSON(), err)
		}
	}
}

func TestReadForeign(t *testing.T) {
	want := `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"a","namespace":"default","resourceVersion":"42","labels":{"app":"b"}}}`
	for name, stored := range map[string]string{
		"another order":    `{"metadata":{"labels":{"app":"b"},"namespace":"default","name":"a"},"apiVersion":"v1","kind":"Endpoints"}`,
		"white space":      "{\"kind\":\"Endpoints\",\"apiVersion\":\"v1\",\"metadata\":{\n \"name\":\"a\",\"namespace\":\"default\",\"labels\":{\"app\":\"b\"}}}",
		"its version":      `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"a","namespace":"default","resourceVersion":"7","labels":{"app":"b"}}}`,
		"repeated members": `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"b"},"metadata":{"name":"a","namespace":"default","labels":{"app":"b"}}}`,
		"no kind":          `{"metadata":{"name":"a","namespace":"default","labels":{"app":"b"}}}`,
		"in S2":            string(s2.Encode(nil, []byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a","namespace":"default","labels":{"app":"b"}},"tail":"`+strings.Repeat("x", 300)+`"}`))),
	} {
		o, err := object.Read(endpointsType(nil), identity("a", 42), []byte(stored))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, string(o.JSON())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
		if got := o.Labels().Get("app"); got != "b" {
			t.Errorf("%s: label %q", name, got)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	typ := endpointsType(nil)
	large := mustEncode(t, typ, endpoints("a", 3000))
	packed, err := object.Pack(large)
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at int) string {
		damaged := bytes.Clone(packed)
		damaged[at] ^= 4
		return string(damaged)
	}
	another, err := object.Pack(mustEncode(t, typ, endpoints("b", 3000)))
	if err != nil {
		t.Fatal(err)
	}
	small := string(mustEncode(t, typ, endpoints("a", 1)))
	for name, stored := range map[string]string{
		"nothing": "", "garbage": "\x00\xffgarbage", "null": "null", "a list": "[]", "a number": "7",
		"cut short": small[:len(small)-3], "more behind": small + "}", "another kind": strings.Replace(small, "Endpoints", "Lease", 1),
		"another name": strings.Replace(small, `"name":"a"`, `"name":"b"`, 1), "wrong types": strings.Replace(small, `"port":80`, `"port":"x"`, 1),
		"a list for metadata": `{"kind":"Endpoints","apiVersion":"v1","metadata":[]}`, "a newer version": strings.Replace(small, `"v1"`, `"v2"`, 1),
		"another name in S2": string(another), "a flipped checksum": flipped(2), "a flipped bit": flipped(len(packed) / 2), "unknown compression": "\x02" + small,
		"zstd cut short": "\x28\xb5\x2f\xfd\x00", "a huge claim": "\xff\xff\xff\xff\x0f",
	} {
		if o, err := object.Read(typ, identity("a", 42), []byte(stored)); err == nil {
			t.Errorf("%s is read as %.200s", name, o.JSON())
		}
	}
}

// Labels are found in whatever order they are stored.
func TestLabelsInAnyOrder(t *testing.T) {
	o := mustRead(t, endpointsType(nil), "a", 42, []byte(`{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"a","namespace":"default","labels":{"d":"4","b":"2","e":"","a":"1","c":"3"}}}`))
	for key, want := range map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": ""} {
		if got, ok := o.Labels().Lookup(key); !ok || got != want {
			t.Errorf("%s is %q (%v), want %q", key, got, ok, want)
		}
	}
	for _, key := range []string{"", "0", "bb", "f"} {
		if value, ok := o.Labels().Lookup(key); ok {
			t.Errorf("%s is found, and is %q", key, value)
		}
	}
}

func TestSelectors(t *testing.T) {
	o := mustRead(t, endpointsType(nil), "a", 42, mustEncode(t, endpointsType(nil), endpoints("a", 1)))
	for text, want := range map[string]bool{
		"app=a": true, "app=b": false, "app": true, "!app": false, "!none": true, "app in (x,a),tier!=y": true, "none=": false,
	} {
		selector, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := selector.Matches(o.Labels()); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	service := &object.Type{
		Kind:   corev1.SchemeGroupVersion.WithKind("Service"),
		New:    func() runtime.Object { return &corev1.Service{} },
		Fields: []string{"spec.clusterIP", "spec.type", "spec.healthCheckNodePort"},
	}
	value := `{"kind":"Service","apiVersion":"v1","metadata":{"name":"a","namespace":"default"},"spec":{"ports":[{"port":1}],"clusterIP":"10.0.0.1","healthCheckNodePort":7}}`
	s, err := object.Read(service, identity("a", 42), []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"metadata.name": "a", "metadata.namespace": "default", "spec.clusterIP": "10.0.0.1", "spec.type": "", "spec.healthCheckNodePort": "7", "spec.other": "",
	} {
		if got := s.Fields().Get(field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	if s.Fields().Has("spec.other") || !s.Fields().Has("spec.type") {
		t.Error("Has is wrong")
	}
}

func TestBookmark(t *testing.T) {
	for ends, want := range map[bool]string{
		false: `{"kind":"Endpoints","apiVersion":"v1","metadata":{"resourceVersion":"42"}}`,
		true:  `{"kind":"Endpoints","apiVersion":"v1","metadata":{"resourceVersion":"42","annotations":{"k8s.io/initial-events-end":"true"}}}`,
	} {
		o, err := object.Bookmark(endpointsType(nil), 42, ends)
		if err != nil || string(o.JSON()) != want {
			t.Errorf("%v: %s, %v", ends, o.JSON(), err)
		}
	}
}

// Cells are made once, of the whole object except most of its metadata, and made again after
// they have failed.
func TestCells(t *testing.T) {
	var got []runtime.Object
	fail := true
	typ := endpointsType(nil)
	typ.Cells = func(obj runtime.Object) []any {
		if fail {
			panic("oh dear")
		}
		got = append(got, obj)
		return []any{"<a>", object.Since(time.Unix(1, 5)), object.Age, 7}
	}
	e := endpoints("web", 2)
	o := mustRead(t, typ, "web", 7, mustEncode(t, typ, e)).At(9)
	func() {
		defer func() { _ = recover() }()
		_, _ = o.Body(object.Cells)
	}()
	fail = false
	for range 2 {
		if cells, err := o.Body(object.Cells); err != nil || string(cells) != "[\"\\u003ca\\u003e\",\x001000000\x00,\x00\x00,7]" {
			t.Errorf("got %s, %v", cells, err)
		}
	}
	e.ObjectMeta = metav1.ObjectMeta{Name: "web", Namespace: "default"}
	if diff := cmp.Diff([]runtime.Object{e}, got); diff != "" {
		t.Errorf("cells were made of (-want +got)\n%s", diff)
	}
}

// What a table needs of the metadata is what the metadata has, wherever it is stored.
func TestTableMetadata(t *testing.T) {
	created := metav1.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	typ := endpointsType(nil)
	for name, metadata := range map[string]string{
		"as written":    `"name":"web","namespace":"default","selfLink":"/a\"b","uid":"u","creationTimestamp":"2026-11-26T12:00:00Z"`,
		"another order": `"labels":{"selfLink":"x"},"creationTimestamp":"2026-11-26T12:00:00Z","selfLink":"/a\"b","namespace":"default","name":"web"`,
		"neither":       `"name":"web","namespace":"default","labels":{"selfLink":"x"}`,
	} {
		stored := mustRead(t, typ, "web", 7, []byte(`{"kind":"Endpoints","apiVersion":"v1","metadata":{`+metadata+`}}`))
		for _, o := range []*object.Object{stored, stored.At(9)} {
			link, at := `/a"b`, created.Time
			if name == "neither" {
				link, at = "", time.Time{}
			}
			if o.SelfLink() != link || !o.Created().Equal(at) {
				t.Errorf("%s: got %q and %v, want %q and %v", name, o.SelfLink(), o.Created(), link, at)
			}
			if metadata, err := o.Metadata(); err != nil || metadata.SelfLink != link {
				t.Errorf("%s: the metadata is %v, %v", name, metadata, err)
			}
		}
	}
}
