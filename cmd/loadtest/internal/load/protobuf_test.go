package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// An object is the same in protobuf as in JSON.
func TestPack(t *testing.T) {
	for _, count := range []int{0, 1, 300} {
		b := newBodies(&Config{Namespace: "ns", Namespaces: 2, Addresses: count, Protobuf: true}, "r1")
		for _, v := range []verb{verbCreate, verbUpdate} {
			op := &operation{verb: v, name: "n", namespace: 1, write: uint64(count)}
			body, contentType := b.of(op)
			packed, found := bytes.CutPrefix(body, []byte(protobufMagic))
			if !found || contentType != "application/vnd.kubernetes.protobuf" {
				t.Fatalf("the body is %q, of %s", body, contentType)
			}
			var envelope runtime.Unknown
			var got, want corev1.Endpoints
			if err := errors.Join(envelope.Unmarshal(packed), got.Unmarshal(envelope.Raw), json.Unmarshal(b.json(op), &want)); err != nil {
				t.Fatal(err)
			}
			if envelope.APIVersion != "v1" || envelope.Kind != "Endpoints" || want.Namespace != "ns-2" {
				t.Errorf("it is %+v in %s", envelope.TypeMeta, want.Namespace)
			}
			want.TypeMeta = metav1.TypeMeta{} // which is in the envelope
			if len(want.Subsets) == 0 {
				want.Subsets = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d addresses (-JSON +protobuf)\n%s", count, diff)
			}
		}
		if _, contentType := b.of(&operation{verb: verbPatch}); contentType != "application/merge-patch+json" {
			t.Errorf("a patch is of %s", contentType)
		}
	}
}

// frame returns an event of a watch as it comes over the wire.
func frame(t testing.TB, kind string, object interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	raw, err := object.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := (&runtime.Unknown{Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	event, err := (&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: append([]byte(protobufMagic), envelope...)}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...)
}

func TestReadFrame(t *testing.T) {
	object := corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "7", Annotations: map[string]string{writeAnnotation: "r1.5"}},
		Subsets:    make([]corev1.EndpointSubset, 1000),
	}
	stream := frame(t, "MODIFIED", &object)
	stream = append(stream, frame(t, "ERROR", &metav1.Status{Code: 410})...)
	whole := len(stream)
	stream = append(stream, frame(t, "DELETED", &object)[:50]...)
	from := bufio.NewReader(bytes.NewReader(stream))
	var buffer []byte
	for i, want := range []event{{kind: "MODIFIED", name: "n", version: "7", write: "r1.5"}, {kind: "ERROR", code: 410}} {
		var got event
		var err error
		if got, buffer, err = readFrame(from, buffer); err != nil || got != want {
			t.Fatalf("event %d: got %+v, %v, want %+v", i, got, err, want)
		}
	}
	if _, _, err := readFrame(from, buffer); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut one: %v", err)
	}
	if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(stream[whole:whole])), nil); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	for faulty, want := range map[string]string{
		"\xff\xff\xff\xff":                   "longer than",
		"\x00\x00\x00\x01\xff":               "cannot be read",
		"\x00\x00\x00\x03\x0a\x01A":          "not in protobuf",
		"{\"type\":\"ADDED\",\"object\":{}}": "longer than",
	} {
		if _, _, err := readFrame(bufio.NewReader(strings.NewReader(faulty)), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", faulty, err, want)
		}
	}
}

func FuzzUnpackEvent(f *testing.F) {
	f.Add(frame(f, "ADDED", &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "n"}})[4:])
	f.Add(frame(f, "ERROR", &metav1.Status{Code: 410})[4:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := unpackEvent(data); err != nil && e.name != "" {
			t.Errorf("%+v with %v", e, err)
		}
	})
}
