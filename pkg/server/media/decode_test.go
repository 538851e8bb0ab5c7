package media_test

import (
	"bytes"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
)

// inGroup is a type of a group that is not the core.
var inGroup = &object.Type{
	Kind: schema.GroupVersionKind{Group: "example.k8s.io", Version: "v1", Kind: "Endpoints"},
	New:  func() runtime.Object { return &corev1.Endpoints{} },
}

var deleteOptions = &object.Type{
	Kind: schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"},
	New:  func() runtime.Object { return &metav1.DeleteOptions{} },
}

// envelope is the protobuf message of obj, which says that it is of that kind.
func envelope(t testing.TB, obj runtime.Object, apiVersion, kind string) []byte {
	t.Helper()
	message, err := obj.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	unknown := &runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: message}
	data, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("k8s\x00"), data...)
}

// The texts are kube-apiserver's.
func TestDecodeErrors(t *testing.T) {
	c := media.New(newScheme(t))
	const (
		handled      = `Endpoints in version "v1" cannot be handled as a Endpoints: `
		unrecognized = "the object provided is unrecognized (must be of type Endpoints): "
		noKind       = unrecognized + "couldn't get version/kind; json parse error: "
		unknownKind  = `Nope in version "v1" cannot be handled as a Endpoints: no kind "Nope" is registered for version "v1"`
		otherKind    = `Pod in version "v1" cannot be handled as a Endpoints: converting (v1.Pod) to (core.Endpoints): unknown conversion`
	)
	for name, tc := range map[string]struct {
		data, mediaType, validation string
		want                        string
	}{
		"no JSON":      {`{bad`, plainJSON, "", noKind + "invalid character 'b' looking for beginning of object key string ({bad)"},
		"empty":        {``, plainJSON, "", noKind + "unexpected end of JSON input (<empty>)"},
		"long":         {`{"metadata":{"name":"aaaaaaaaaaaaaaaaaaaaaaaaa`, plainJSON, "", noKind + `unexpected end of JSON input ({"metadata":{"name":"aaaaaaaaa ...)`},
		"wrong type":   {`{"subsets":[{"addresses":[{"ip":1}]}]}`, plainJSON, "", handled + "json: cannot unmarshal number into Go struct field EndpointAddress.subsets.addresses.ip of type string"},
		"other kind":   {`{"kind":"Pod","apiVersion":"v1"}`, plainJSON, "", otherKind},
		"unknown kind": {`{"kind":"Nope","apiVersion":"v1"}`, plainJSON, "", unknownKind},
		"unknown version": {
			`{"kind":"Endpoints","apiVersion":"v2"}`, plainJSON, "",
			`Endpoints in version "v2" cannot be handled as a Endpoints: no kind "Endpoints" is registered for version "v2"`,
		},
		"other kind, wrong type": {`{"kind":"Pod","apiVersion":"v1","subsets":1}`, plainJSON, "", otherKind},
		"strict": {
			`{"metadata":{"name":"a","name":"b","bogus":1},"foo":1}`, plainJSON, "Strict",
			handled + `strict decoding error: duplicate field "metadata.name", unknown field "metadata.bogus", unknown field "foo"`,
		},
		"case": {`{"metadata":{"Name":"a"}}`, plainJSON, "Strict", handled + `strict decoding error: unknown field "metadata.Name"`},

		"no protobuf":    {`{"metadata":{}}`, protoType, "", unrecognized + `provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({"metadata":{}})`},
		"empty protobuf": {``, protoType, "", unrecognized + `empty data (<empty>)`},
		"cut protobuf":   {"k8s\x00\x0a\x05", protoType, "", unrecognized + "unexpected EOF (6b3873000a05)"},
		"protobuf, other kind": {
			string(envelope(t, &corev1.Pod{}, "v1", "Pod")), protoType, "", otherKind,
		},
		"protobuf, unknown kind": {
			string(envelope(t, &corev1.Pod{}, "v1", "Nope")), protoType, "", unknownKind,
		},

		"no YAML":          {"\tbad: [", yamlType, "", unrecognized + "yaml: found character that cannot start any token (096261643a205b)"},
		"strict YAML":      {"foo: 1\n", yamlType, "Strict", handled + `strict decoding error: unknown field "foo"`},
		"YAML, wrong type": {"subsets: 1\n", yamlType, "", handled + "json: cannot unmarshal number into Go struct field Endpoints.subsets of type []v1.EndpointSubset"},
		"YAML, other kind": {"kind: Pod\napiVersion: v1\n", yamlType, "", otherKind},
		"YAML, strict, twice": {
			"metadata:\n  name: a\n  name: b\n  bogus: 1\n", yamlType, "Strict",
			handled + "strict decoding error: yaml: unmarshal errors:\n  line 3: key \"name\" already set in map, unknown field \"metadata.bogus\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, warnings, err := c.Decode([]byte(tc.data), tc.mediaType, endpointsType, tc.validation)
			if !apierrors.IsBadRequest(err) || err.Error() != tc.want || len(warnings) > 0 {
				t.Errorf("got  %v, warnings %q\nwant %s", err, warnings, tc.want)
			}
		})
	}
}

// The package of the types that an error names is the group's.
func TestDecodeErrorsOfGroups(t *testing.T) {
	c := media.New(newScheme(t))
	_, _, err := c.Decode([]byte(`{"kind":"Pod","apiVersion":"v1"}`), plainJSON, inGroup, "")
	want := `Pod in version "v1" cannot be handled as a Endpoints: converting (v1.Pod) to (example.Endpoints): unknown conversion`
	if !apierrors.IsBadRequest(err) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, _, err = c.Decode([]byte(`{"kind":"Endpoints","apiVersion":"v1"}`), plainJSON, inGroup, "")
	want = "the API version in the data (v1) does not match the expected API version (example.k8s.io/v1)"
	if !apierrors.IsBadRequest(err) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDecodeWarnings(t *testing.T) {
	c := media.New(newScheme(t))
	const data, yaml = `{"metadata":{"name":"a","name":"b","bogus":1}}`, "metadata:\n  name: a\n  name: b\n  bogus: 1\n"
	for _, tc := range []struct {
		data, mediaType, validation string
		want                        []string
	}{
		{data, plainJSON, "", []string{`duplicate field "metadata.name"`, `unknown field "metadata.bogus"`}},
		{data, plainJSON, "Warn", []string{`duplicate field "metadata.name"`, `unknown field "metadata.bogus"`}},
		{data, plainJSON, "Ignore", nil},
		{yaml, yamlType, "", []string{`line 3: key "name" already set in map`, `unknown field "metadata.bogus"`}},
		{yaml, yamlType, "Ignore", nil},
	} {
		obj, got, err := c.Decode([]byte(tc.data), tc.mediaType, endpointsType, tc.validation)
		if err != nil || obj.(*corev1.Endpoints).Name != "b" || !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %q, %v, %v, want %q", tc.validation, got, obj, err, tc.want)
		}
	}
}

// What a body leaves out of its kind is inferred from the path, whatever its media type.
func TestDecodeInfersKinds(t *testing.T) {
	c := media.New(newScheme(t))
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	for name, tc := range map[string]struct {
		data      []byte
		mediaType string
	}{
		"neither":            {[]byte(`{"metadata":{"name":"a"}}`), plainJSON},
		"kind":               {[]byte(`{"kind":"Endpoints","metadata":{"name":"a"}}`), plainJSON},
		"version":            {[]byte(`{"apiVersion":"v1","metadata":{"name":"a"}}`), plainJSON},
		"both":               {[]byte(`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a"}}`), plainJSON},
		"YAML":               {[]byte("metadata: {name: a}\n"), yamlType},
		"YAML, JSON":         {[]byte(`{"metadata":{"name":"a"}}`), yamlType},
		"YAML, with markers": {[]byte("---\nmetadata: {name: a}\n---\n"), yamlType},
		"protobuf":           {envelope(t, want, "v1", "Endpoints"), protoType},
		"protobuf, neither":  {envelope(t, want, "", ""), protoType},
	} {
		obj, warnings, err := c.Decode(tc.data, tc.mediaType, endpointsType, "Strict")
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %q", name, err, warnings)
			continue
		}
		got := obj.(*corev1.Endpoints)
		got.TypeMeta = metav1.TypeMeta{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// Clients send options under the version of any group, in every media type.
func TestDecodeOptions(t *testing.T) {
	c := media.New(newScheme(t))
	seconds := int64(5)
	options := &metav1.DeleteOptions{GracePeriodSeconds: &seconds}
	for _, apiVersion := range []string{"", "v1", "meta.k8s.io/v1", "apps/v1", "example.io/v9"} {
		for mediaType, data := range map[string][]byte{
			plainJSON: []byte(`{"kind":"DeleteOptions","apiVersion":"` + apiVersion + `","gracePeriodSeconds":5}`),
			yamlType:  []byte("kind: DeleteOptions\napiVersion: '" + apiVersion + "'\ngracePeriodSeconds: 5\n"),
			protoType: envelope(t, options, apiVersion, "DeleteOptions"),
		} {
			obj, _, err := c.Decode(data, mediaType, deleteOptions, "Ignore")
			if err != nil || *obj.(*metav1.DeleteOptions).GracePeriodSeconds != seconds {
				t.Errorf("%q in %s: got %v, %v", apiVersion, mediaType, obj, err)
			}
		}
	}
	if _, _, err := c.Decode([]byte(`{"kind":"CreateOptions","apiVersion":"v1"}`), plainJSON, deleteOptions, "Ignore"); !apierrors.IsBadRequest(err) {
		t.Errorf("other options: got %v, want BadRequest", err)
	}
}

// A small body that stands for a large one is too large.
func TestDecodeExpandingYAML(t *testing.T) {
	c := media.New(newScheme(t))
	data := "metadata:\n  annotations: {a: &a " + strings.Repeat("x", 1_000_000) + strings.Repeat(", b: *a", 9) + "}\n"
	_, _, err := c.Decode([]byte(data), yamlType, endpointsType, "")
	if !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Errorf("got %v", err)
	}
}

var fieldValidations = []string{"", metav1.FieldValidationIgnore, metav1.FieldValidationWarn, metav1.FieldValidationStrict}

// Whatever the bytes are, decoding them gives an object, or an error that blames them. The
// object keeps nothing of the bytes, and is the same after encoding and decoding it again.
func FuzzDecode(f *testing.F) {
	scheme := newScheme(f)
	c := media.New(scheme)
	seed := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"b": "c"}}}
	var proto bytes.Buffer
	if err := protobuf.NewSerializer(scheme, scheme).Encode(seed, &proto); err != nil {
		f.Fatal(err)
	}
	f.Add(proto.Bytes(), uint8(2), uint8(0))
	f.Add([]byte(`{"metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:a":{}},"time":"2020-01-01T00:00:00Z"}]}}`), uint8(0), uint8(3))
	f.Add([]byte("metadata: &a {name: 1}\nsubsets: [{addresses: [{ip: 10.0.0.1}]}]\n"), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, mediaType, validation uint8) {
		kind := c.Types()[int(mediaType)%len(c.Types())]
		fieldValidation := fieldValidations[int(validation)%len(fieldValidations)]
		weight, _, tooLarge := c.Weigh(data, kind, endpointsType)
		if tooLarge != nil && !apierrors.IsRequestEntityTooLargeError(tooLarge) {
			t.Fatal(tooLarge)
		}
		decoded, warnings, err := c.Decode(data, kind, endpointsType, fieldValidation)
		if err != nil {
			var status *apierrors.StatusError
			if !errors.As(err, &status) || status.ErrStatus.Code != http.StatusBadRequest && status.ErrStatus.Code != http.StatusRequestEntityTooLarge {
				t.Errorf("got %T %v, want a BadRequest", err, err)
			}
			return
		}
		obj := decoded.(*corev1.Endpoints)
		// Aliases of YAML are bounded by what they expand to.
		if size := sizeOf(reflect.ValueOf(obj)); tooLarge == nil && int64(size) > 2*weight && !(kind == yamlType && bytes.ContainsRune(data, '*')) {
			t.Errorf("%q weighs %d and takes %d", data, weight, size)
		}
		if len(warnings) > 0 && (fieldValidation == metav1.FieldValidationIgnore || fieldValidation == metav1.FieldValidationStrict) {
			t.Errorf("warned in spite of %s: %q", fieldValidation, warnings)
		}
		if kind != protoType && !expressible(obj) {
			t.Skip("a time that RFC 3339 cannot tell")
		}
		out, err := c.Negotiate(request(kind, false))
		if err != nil {
			t.Fatal(err)
		}
		obj.SetGroupVersionKind(endpointsType.Kind)
		first := encodeAny(t, out, obj)
		for i := range data {
			data[i] = '#'
		}
		if again := encodeAny(t, out, obj); !bytes.Equal(first, again) {
			t.Fatalf("%q changed with the bytes it came from: %q", first, again)
		}
		next, warnings, err := c.Decode(bytes.Clone(first), kind, endpointsType, metav1.FieldValidationStrict)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%q was not decoded again: %v, %q", first, err, warnings)
		}
		if second := encodeAny(t, out, next); !bytes.Equal(first, second) {
			t.Errorf("%q became %q", first, second)
		}
	})
}

// sizeOf is the memory of the elements that an object refers to, in bytes.
func sizeOf(v reflect.Value) int {
	size := 0
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*time.Location]() {
			size += sizeOf(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			size += sizeOf(v.Field(i))
		}
	case reflect.Slice:
		size += v.Len() * int(v.Type().Elem().Size())
		for i := range v.Len() {
			size += sizeOf(v.Index(i))
		}
	case reflect.Map:
		size += v.Len() * int(v.Type().Elem().Size()+v.Type().Key().Size())
	case reflect.String:
		size += v.Len()
	}
	return size
}

func encodeAny(t *testing.T, out media.Output, obj runtime.Object) []byte {
	t.Helper()
	var written bytes.Buffer
	if err := out.Any(&written, obj); err != nil {
		t.Fatal(err)
	}
	return written.Bytes()
}

// expressible reports whether the object's times have years of four digits.
func expressible(obj *corev1.Endpoints) bool {
	times := []*metav1.Time{&obj.CreationTimestamp, obj.DeletionTimestamp}
	for i := range obj.ManagedFields {
		times = append(times, obj.ManagedFields[i].Time)
	}
	for _, at := range times {
		if at != nil && (at.UTC().Year() < 0 || at.UTC().Year() > 9999) {
			return false
		}
	}
	return true
}
