package patch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/registry/patch"
)

var kinds = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}

// endpoints is the JSON of Endpoints with n addresses.
func endpoints(t testing.TB, n int) []byte {
	t.Helper()
	e := &corev1.Endpoints{
		TypeMeta: metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "e", Labels: map[string]string{"a": "<1>", "b/c": "2"}, Finalizers: []string{"x/f", "x/g"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "s", UID: "u"}},
		},
		Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80, Protocol: "TCP"}}}},
	}
	for i := range n {
		node := fmt.Sprint("node-", i%100)
		e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, corev1.EndpointAddress{
			IP: fmt.Sprintf("10.%d.%d.%d", i/62500, i/250%250, 1+i%250), NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprint("pod-", i), UID: types.UID(fmt.Sprintf("ae417968-4f69-40da-9228-2434%08d", i))},
		})
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// apply parses and applies a patch.
func apply(kind types.PatchType, data string, before []byte) ([]byte, error) {
	p, err := patch.Parse(kind, []byte(data), &corev1.Endpoints{})
	if err != nil {
		return nil, err
	}
	after, _, err := p.Apply(before)
	return after, err
}

// check fails the test unless err is a Status of the code whose message holds the text.
func check(t *testing.T, err error, code int32, text string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != code || !strings.Contains(status.Status().Message, text) {
		t.Errorf("got %v, want %d and %q", err, code, text)
	}
}

func TestApply(t *testing.T) {
	const before = `{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":"e","labels":{"a":"1"},"finalizers":["x/f"]},"subsets":[{"ports":[{"port":80}]}]}`
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch string
		want  string // of the metadata and the subsets
	}{
		"JSON":                 {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/b","value":"2"},{"op":"remove","path":"/subsets/0/ports"}]`, `{"metadata":{"finalizers":["x/f"],"labels":{"a":"1","b":"2"},"name":"e"},"subsets":[{}]}`},
		"JSON, from elsewhere": {types.JSONPatchType, `[{"op":"move","from":"/subsets/0","path":"/metadata/x"}]`, `{"metadata":{"finalizers":["x/f"],"labels":{"a":"1"},"name":"e","x":{"ports":[{"port":80}]}},"subsets":[]}`},
		"JSON, the whole":      {types.JSONPatchType, `[{"op":"replace","path":"","value":{"metadata":{}}}]`, `{"metadata":{},"subsets":null}`},
		"merge":                {types.MergePatchType, `{"metadata":{"labels":{"a":null,"b":"2"},"finalizers":["x/g"]}}`, `{"metadata":{"finalizers":["x/g"],"labels":{"b":"2"},"name":"e"},"subsets":[{"ports":[{"port":80}]}]}`},
		"merge, a list":        {types.MergePatchType, `{"subsets":null}`, `{"metadata":{"finalizers":["x/f"],"labels":{"a":"1"},"name":"e"},"subsets":null}`},
		"merge of nothing":     {types.MergePatchType, `{}`, `{"metadata":{"finalizers":["x/f"],"labels":{"a":"1"},"name":"e"},"subsets":[{"ports":[{"port":80}]}]}`},
		"strategic":            {types.StrategicMergePatchType, `{"metadata":{"finalizers":["x/g"]},"subsets":[{}]}`, `{"metadata":{"finalizers":["x/g","x/f"],"labels":{"a":"1"},"name":"e"},"subsets":[{}]}`},
		"strategic, the whole": {types.StrategicMergePatchType, `{"$retainKeys":["metadata"],"metadata":{}}`, `{"metadata":{"finalizers":["x/f"],"labels":{"a":"1"},"name":"e"},"subsets":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := patch.Parse(tc.kind, []byte(tc.patch), &corev1.Endpoints{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // applying it leaves it as it is
				after, _, err := p.Apply([]byte(before))
				if err != nil {
					t.Fatal(err)
				}
				var got map[string]any
				if err := json.Unmarshal(after, &got); err != nil {
					t.Fatal(err)
				}
				shown, err := json.Marshal(map[string]any{"metadata": got["metadata"], "subsets": got["subsets"]})
				if diff := cmp.Diff(tc.want, string(shown)); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for kind, tc := range map[types.PatchType]struct{ patch, want string }{
		types.JSONPatchType:           {`[{"op":"remove","op":"test","path":"/kind","x":1}]`, `[json patch duplicate field "[0].op" json patch unknown field "[0].x"]`},
		types.MergePatchType:          {`{"metadata":{"name":"a","name":"b"}}`, `[duplicate field "metadata.name"]`},
		types.StrategicMergePatchType: {`{"metadata":{"name":"a","name":"b"}}`, `[duplicate field "metadata.name"]`},
	} {
		p, err := patch.Parse(kind, []byte(tc.patch), &corev1.Endpoints{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, fmt.Sprint(p.Faults)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
}

func TestRefusals(t *testing.T) {
	const rejected = "the server rejected our request due to an error in our request"
	before := endpoints(t, 2)
	for _, tc := range []struct {
		kind  types.PatchType
		patch string
		code  int32
		text  string
	}{
		{types.JSONPatchType, operations("", 10_001, `{"op":"test","path":"/kind","value":"Endpoints"}`), 413, "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{types.JSONPatchType, `{`, 400, "error decoding patch: unexpected end of JSON input"},
		{types.JSONPatchType, `{}`, 400, "error decoding patch: json: cannot unmarshal object"},
		{types.JSONPatchType, `[{"op":"test","path":"/kind","value":"Pod"}]`, 422, rejected},
		{types.JSONPatchType, `[{"op":"remove","path":"/metadata/x"}]`, 422, rejected},
		{types.JSONPatchType, `[{"op":"frob","path":"/metadata/x"}]`, 422, rejected},
		{types.JSONPatchType, `[{"op":"add","path":"","value":1}]`, 422, rejected},
		// The library panics at these.
		{types.JSONPatchType, `[{"op":"add","path":"/metadata/x","value":null},{"op":"copy","from":"/metadata/x","path":"/y"},{"op":"add","path":"/y/a","value":"b"}]`, 422, rejected},
		{types.JSONPatchType, `[{"op":"test","path":""}]`, 422, rejected},
		{types.JSONPatchType, `[{"op":"replace","path":""}]`, 422, rejected},
		{types.MergePatchType, `zzz`, 400, "invalid JSON patch"},
		{types.MergePatchType, `[]`, 400, "error decoding patch: json: cannot unmarshal array"},
		{types.MergePatchType, `null`, 400, "invalid JSON patch"},
		{types.StrategicMergePatchType, `[]`, 400, "json: cannot unmarshal array"},
		{types.StrategicMergePatchType, `{"metadata":{"$patch":"frob"}}`, 422, rejected + ": unknown patch type: frob"},
		{types.StrategicMergePatchType, `{"$patch":"frob"}`, 422, rejected + ": unknown patch type: frob"},
		{types.StrategicMergePatchType, `{"$retainKeys":null}`, 400, "invalid patch format of retainKeys"},
		{types.StrategicMergePatchType, `{"$retainKeys":[{}]}`, 400, "strategic merge patch format is not supported: $retainKeys, merge keys"},
		{types.StrategicMergePatchType, `{"metadata":{"ownerReferences":[{"uid":{}}]}}`, 400, "strategic merge patch format is not supported"},
		{types.StrategicMergePatchType, `{"metadata":{"finalizers":[{"a":"` + strings.Repeat("x", 5000) + `"}]}}`, 422, "x ..."},
	} {
		_, err := apply(tc.kind, tc.patch, before)
		check(t, err, tc.code, tc.text)
	}
}

// Lists that the library replaces may be as long as they like, also where the patch is long.
func TestLongLists(t *testing.T) {
	list := func(n int) string {
		return `["x/` + strings.Join(make([]string, n), `x","x/`) + `"]`
	}
	before := endpoints(t, 2000)
	for _, patch := range []string{
		`{"metadata":{"finalizers":` + list(1001) + `}}`,
		`{"metadata":{"$setElementOrder/finalizers":` + list(1001) + `}}`,
		`{"$retainKeys":` + list(1001) + `}`,
		`{"$deleteFromPrimitiveList/subsets":` + list(1001) + `}`,
	} {
		_, err := apply(types.StrategicMergePatchType, patch, before)
		check(t, err, 413, "the lists that a strategic merge patch may merge have at most 1000 elements, here is one of")
	}
	long, err := apply(types.MergePatchType, `{"metadata":{"finalizers":`+list(1001)+`}}`, before)
	if err != nil {
		t.Fatal(err)
	}
	_, err = apply(types.StrategicMergePatchType, `{"metadata":{"finalizers":["x/new"]}}`, long)
	check(t, err, 413, "here is one of 1001")
	var object struct{ Subsets json.RawMessage }
	if err := json.Unmarshal(before, &object); err != nil {
		t.Fatal(err)
	}
	for _, patch := range []string{`{"subsets":` + string(object.Subsets) + `}`, `{"metadata":{"labels":{"a":null}}}`} {
		if _, err := apply(types.StrategicMergePatchType, patch, before); err != nil {
			t.Error(err)
		}
	}
}

// What a patch names is all that the libraries get, and the outcome is still what they make
// of the whole object, which is also what is decoded of what has changed, with the rest carried.
func FuzzApply(f *testing.F) {
	before := endpoints(f, 2)
	for kind, seeds := range [][]string{
		{`[{"op":"add","path":"/metadata/labels/b~1c","value":"<"},{"op":"copy","from":"/subsets/0","path":"/subsets/-"}]`, `[{"op":"move","from":"/metadata","path":"/~0"},{"op":"test","path":"kind/kind","value":"Endpoints"}]`, `[{"op":"replace","path":"","value":[1]}]`, `[{"op":"test","path":"/x","value":null}]`},
		{`{"metadata":{"labels":null,"x":{"y":null}},"<&>":[null,{"a":null}]}`, `{"kind":null}`, `null`, `{"subsets":{"a":1}}`},
		{`{"metadata":{"finalizers":["x/h"],"$setElementOrder/finalizers":["x/h","x/f"]}}`, `{"$patch":"replace","a":1}`, `{"metadata":{"$patch":"delete"}}`, `{"subsets":[{"$patch":"replace"}]}`, `{"$setElementOrder/subsets":[]}`},
	} {
		for _, seed := range seeds {
			f.Add(byte(kind), []byte(seed))
		}
	}
	current, err := decode(before)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		p, err := patch.Parse(kinds[int(kind)%len(kinds)], data, &corev1.Endpoints{})
		if err != nil {
			return
		}
		got, changed, err := p.Apply(before)
		want, wantErr := byLibrary(kinds[int(kind)%len(kinds)], data, before)
		if kinds[int(kind)%len(kinds)] == types.StrategicMergePatchType { // which sorts all of the object
			got, want = sorted(got), sorted(want)
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s\ngot  %s, %v\nwant %s, %v", data, got, err, want, wantErr)
		}
		if err != nil {
			return
		}
		carried, carriedErr := decode(changed)
		p.Carry(carried, current)
		whole, err := decode(got)
		if (err == nil) != (carriedErr == nil) || err == nil && !equality.Semantic.DeepEqual(carried, whole) {
			t.Errorf("%s\ncarried %v, %v\ndecoded %v, %v", data, carried, carriedErr, whole, err)
		}
	})
}

func decode(data []byte) (*corev1.Endpoints, error) {
	e := &corev1.Endpoints{}
	return e, kjson.UnmarshalCaseSensitivePreserveInts(data, e)
}

// sorted returns JSON with the members of every object sorted.
func sorted(data []byte) []byte {
	var decoded any
	if json.Unmarshal(data, &decoded) != nil {
		return data
	}
	data, _ = json.Marshal(decoded) // it was JSON
	return data
}

// byLibrary patches the whole object.
func byLibrary(kind types.PatchType, data, before []byte) (after []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	switch kind {
	case types.JSONPatchType:
		operations, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, err
		}
		return operations.Apply(before)
	case types.MergePatchType:
		return jsonpatch.MergePatch(before, data)
	default:
		return strategicpatch.StrategicMergePatch(before, data, &corev1.Endpoints{})
	}
}

// cost patches the object and returns the bytes that it took, garbage included.
func cost(kind types.PatchType, data string, before []byte) (allocated uint64, err error) {
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	_, err = apply(kind, data, before)
	runtime.ReadMemStats(&is)
	return is.TotalAlloc - was.TotalAlloc, err
}

func BenchmarkApply(b *testing.B) {
	for name, tc := range map[string]struct {
		kind  types.PatchType
		patch string
	}{
		"JSON":      {types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/b","value":"2"}]`},
		"merge":     {types.MergePatchType, `{"metadata":{"labels":{"b":"2"}}}`},
		"strategic": {types.StrategicMergePatchType, `{"metadata":{"labels":{"b":"2"}}}`},
	} {
		for _, n := range []int{1, 1000} {
			before := endpoints(b, n)
			b.Run(fmt.Sprintf("%s/addresses=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := apply(tc.kind, tc.patch, before); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
