package media_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/stream"
)

var endpointsType = &object.Type{
	Kind: corev1.SchemeGroupVersion.WithKind("Endpoints"),
	New:  func() runtime.Object { return &corev1.Endpoints{} },
	Columns: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string"}, {Name: "Count", Type: "integer"}, {Name: "Text", Type: "string"}, {Name: "Age", Type: "string"}, {Name: "Last", Type: "string"},
	},
	Cells: func(obj runtime.Object) []any {
		e := obj.(*corev1.Endpoints)
		return []any{e.Namespace + "/" + e.Name, len(e.Subsets), "<&>", object.Age, "end"}
	},
}

func newScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// list returns a list of n objects, finished and as the library has it.
func list(t testing.TB, n int) (*object.List, *corev1.EndpointsList) {
	t.Helper()
	remaining := int64(7)
	meta := metav1.ListMeta{SelfLink: "/api/v1/endpoints", ResourceVersion: "900", Continue: "abc", RemainingItemCount: &remaining}
	finished := &object.List{Type: endpointsType, Meta: meta, Adjacent: true, FromStart: true}
	typed := &corev1.EndpointsList{TypeMeta: metav1.TypeMeta{Kind: "EndpointsList", APIVersion: "v1"}, ListMeta: meta, Items: []corev1.Endpoints{}}
	for i := range n {
		e := corev1.Endpoints{
			TypeMeta:   metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("e-%d", i), Namespace: "default", SelfLink: "/e<>", UID: "u", Labels: map[string]string{"a": "<&>"}},
			Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}}}},
		}
		if i%2 == 1 {
			e.CreationTimestamp = metav1.NewTime(time.Now().Add(-72 * time.Hour).Truncate(time.Second))
		}
		value, err := endpointsType.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		o, err := object.Read(endpointsType, object.Identity{Key: "/k/" + e.Name, Namespace: "default", Name: e.Name, Revision: int64(100 + i)}, value)
		if err != nil {
			t.Fatal(err)
		}
		finished.Objects = append(finished.Objects, o)
		e.TypeMeta, e.ResourceVersion = metav1.TypeMeta{}, fmt.Sprint(100+i)
		typed.Items = append(typed.Items, e)
	}
	return finished, typed
}

// metaVersions are the versions of meta.k8s.io that clients ask for.
var metaVersions = []string{"v1", "v1beta1"}

// metaKind is a kind of meta.k8s.io.
func metaKind(version, kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: metav1.GroupName, Version: version, Kind: kind}
}

func partialList(typed *corev1.EndpointsList, version string) *metav1.PartialObjectMetadataList {
	partial := &metav1.PartialObjectMetadataList{ListMeta: typed.ListMeta}
	partial.SetGroupVersionKind(metaKind(version, "PartialObjectMetadataList"))
	for _, item := range typed.Items {
		one := metav1.PartialObjectMetadata{ObjectMeta: item.ObjectMeta}
		one.SetGroupVersionKind(metaKind(version, "PartialObjectMetadata"))
		partial.Items = append(partial.Items, one)
	}
	return partial
}

func request(accept string, gzip bool) *http.Request {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	req.Header.Set("Accept", accept)
	if gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	return req
}

// answer is what write writes for a request, unpacked.
func answer(t *testing.T, c *media.Codecs, req *http.Request, write func(media.Output, *stream.Writer) error) string {
	t.Helper()
	out, err := c.Negotiate(req)
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	w := stream.New(recorder, http.StatusOK, media.AcceptsGzip(req))
	defer w.Release()
	if err := write(out, w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	body := recorder.Body.Bytes()
	if length := recorder.Header().Get("Content-Length"); length != "" && length != fmt.Sprint(len(body)) {
		t.Errorf("Content-Length is %s, there are %d bytes", length, len(body))
	}
	if recorder.Header().Get("Content-Encoding") == "gzip" {
		reader, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
	return string(body)
}

// encode is what apimachinery's encoder makes of obj.
func encode(t *testing.T, encoder runtime.Encoder, obj runtime.Object) string {
	t.Helper()
	var out bytes.Buffer
	if err := encoder.Encode(obj, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestListsAgree holds every form of lists and objects to what apimachinery makes of them.
func TestListsAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	serializer := func(options json.SerializerOptions) runtime.Encoder {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, options)
	}
	const meta = ";as=PartialObjectMetadataList;g=meta.k8s.io;v="
	for _, n := range []int{0, 1, 30, 900} {
		finished, typed := list(t, n)
		type test struct {
			accept  string
			encoder runtime.Encoder
			want    runtime.Object
		}
		tests := []test{
			{"application/json", serializer(json.SerializerOptions{}), typed},
			{"application/json;pretty=1", serializer(json.SerializerOptions{Pretty: true}), typed},
			{"application/yaml", serializer(json.SerializerOptions{Yaml: true}), typed},
			{"application/vnd.kubernetes.protobuf", protobuf.NewSerializer(scheme, scheme), typed},
		}
		for _, version := range metaVersions {
			partial := partialList(typed, version)
			tests = append(tests,
				test{"application/json" + meta + version, serializer(json.SerializerOptions{}), partial},
				test{"application/yaml" + meta + version, serializer(json.SerializerOptions{Yaml: true}), partial},
				test{"application/vnd.kubernetes.protobuf" + meta + version, protobuf.NewSerializer(scheme, scheme), partial},
			)
		}
		for _, test := range tests {
			for _, gzip := range []bool{false, true} {
				got := answer(t, c, request(test.accept, gzip), func(out media.Output, w *stream.Writer) error {
					return out.List(t.Context(), w, finished, "")
				})
				if want := encode(t, test.encoder, test.want); got != want {
					t.Errorf("%d objects as %s, gzip %v (-want +got)\n%s", n, test.accept, gzip, cmp.Diff(head(want), head(got)))
				}
			}
		}
	}
}

func head(s string) string { return s[:min(len(s), 1500)] }

func TestObjectsAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	finished, typed := list(t, 1)
	one := typed.Items[0].DeepCopy()
	one.TypeMeta = metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"}
	partial, older := &partialList(typed, "v1").Items[0], &partialList(typed, "v1beta1").Items[0]
	serializer := func(options json.SerializerOptions) runtime.Encoder {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, options)
	}
	plain := serializer(json.SerializerOptions{})
	proto := protobuf.NewSerializer(scheme, scheme)
	const meta = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	for accept, want := range map[string]string{
		"application/json":                                     encode(t, plain, one),
		"application/json;pretty=1":                            encode(t, serializer(json.SerializerOptions{Pretty: true}), one),
		"application/yaml":                                     encode(t, serializer(json.SerializerOptions{Yaml: true}), one),
		"application/yaml" + meta:                              encode(t, serializer(json.SerializerOptions{Yaml: true}), partial),
		"application/json" + meta:                              encode(t, plain, partial),
		"application/vnd.kubernetes.protobuf":                  encode(t, proto, one),
		"application/vnd.kubernetes.protobuf" + meta:           encode(t, proto, partial),
		"application/json" + meta + "beta1":                    encode(t, plain, older),
		"application/vnd.kubernetes.protobuf" + meta + "beta1": encode(t, proto, older),
	} {
		got := answer(t, c, request(accept, true), func(out media.Output, w *stream.Writer) error {
			return out.Object(t.Context(), w, finished.Objects[0], "")
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", accept, diff)
		}
	}
}

// A large object is compressed as a block of its own.
func TestLargeObjectsAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	one := &corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"text": strings.Repeat("x", stream.Threshold)}},
	}
	value, err := endpointsType.Encode(one)
	if err != nil {
		t.Fatal(err)
	}
	finished, err := object.Written(endpointsType, object.Identity{Key: "/a", Name: "a"}, value)
	if err != nil {
		t.Fatal(err)
	}
	for accept, want := range map[string]string{
		plainJSON: string(value) + "\n",
		protoType: encode(t, protobuf.NewSerializer(scheme, scheme), one),
	} {
		got := answer(t, c, request(accept, true), func(out media.Output, w *stream.Writer) error {
			err := out.Object(t.Context(), w, finished, "")
			if !w.Compressed() {
				t.Errorf("%s: it is not compressed", accept)
			}
			return err
		})
		if got != want {
			t.Errorf("%s (-want +got)\n%s", accept, cmp.Diff(head(want), head(got)))
		}
	}
}

func TestEventsAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	finished, typed := list(t, 3)
	status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Code: 410}
	plain := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{})
	proto := protobuf.NewSerializer(scheme, scheme)
	line := func(eventType string, obj runtime.Object) string {
		return `{"type":"` + eventType + `","object":` + strings.TrimSuffix(encode(t, plain, obj), "\n") + "}\n"
	}
	frame := func(eventType string, obj runtime.Object) string {
		event := metav1.WatchEvent{Type: eventType, Object: runtime.RawExtension{Raw: []byte(encode(t, proto, obj))}}
		data, err := event.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) + string(data)
	}
	whole := func(i int) runtime.Object {
		one := typed.Items[i].DeepCopy()
		one.TypeMeta = metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"}
		return one
	}
	partial := func(i int) runtime.Object { return &partialList(typed, "v1").Items[i] }
	older := func(i int) runtime.Object { return &partialList(typed, "v1beta1").Items[i] }
	const meta = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	for accept, want := range map[string]string{
		"application/json":                                     line("ADDED", whole(0)) + line("DELETED", whole(2)) + line("ERROR", status),
		"application/json;pretty=1":                            line("ADDED", whole(0)) + line("DELETED", whole(2)) + line("ERROR", status),
		"application/json" + meta:                              line("ADDED", partial(0)) + line("DELETED", partial(2)) + line("ERROR", status),
		"application/vnd.kubernetes.protobuf":                  frame("ADDED", whole(0)) + frame("DELETED", whole(2)) + frame("ERROR", status),
		"application/vnd.kubernetes.protobuf" + meta:           frame("ADDED", partial(0)) + frame("DELETED", partial(2)) + frame("ERROR", status),
		"application/json" + meta + "beta1":                    line("ADDED", older(0)) + line("DELETED", older(2)) + line("ERROR", status),
		"application/vnd.kubernetes.protobuf" + meta + "beta1": frame("ADDED", older(0)) + frame("DELETED", older(2)) + frame("ERROR", status),
	} {
		for _, gzip := range []bool{false, true} {
			got := answer(t, c, request(accept, gzip), func(out media.Output, w *stream.Writer) error {
				events, err := c.Events(out, "")
				if err != nil {
					return err
				}
				if err := w.Flush(); err != nil {
					return err
				}
				for _, event := range []object.Event{{Type: watch.Added, Object: finished.Objects[0]}, {Type: watch.Deleted, Object: finished.Objects[2]}} {
					if err := events.Write(w, event); err != nil {
						return err
					}
				}
				return events.WriteError(w, status)
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, gzip %v (-want +got)\n%s", accept, gzip, diff)
			}
		}
	}
	if out, err := c.Negotiate(request("application/yaml", false)); err != nil {
		t.Error(err)
	} else if _, err := c.Events(out, ""); err == nil {
		t.Error("a watch is answered in YAML")
	}
}
