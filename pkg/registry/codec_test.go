package registry_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/endpoints"
)

// reencoded is what finish promises: the value decoded, versioned and encoded again.
func reencoded(t testing.TB, r *registry.Resource, value []byte, revision int64) []byte {
	t.Helper()
	obj := r.New()
	if err := json.Unmarshal(value, obj); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	setVersion(t, obj, revision)
	obj.GetObjectKind().SetGroupVersionKind(r.GroupVersionKind())
	want, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func setVersion(t testing.TB, obj runtime.Object, revision int64) {
	t.Helper()
	accessor, err := meta.Accessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	accessor.SetResourceVersion(strconv.FormatInt(revision, 10))
}

// servedJSON is what a client gets that asks for plain JSON.
func servedJSON(t testing.TB, obj runtime.Object) []byte {
	t.Helper()
	switch obj := obj.(type) {
	case finishedObject:
		head, rest, err := obj.Finished()
		if err != nil {
			t.Fatal(err)
		}
		return []byte(string(head) + string(rest) + "\n")
	case finishedList:
		return []byte(assembled(t, obj))
	}
	return encoded(t, plainJSON, obj)
}

var plainJSON = jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, nil, nil, jsonserializer.SerializerOptions{})

func encoded(t testing.TB, encoder runtime.Encoder, obj runtime.Object) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := encoder.Encode(obj, io.Writer(&buf)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// spliceable says whether the value is finished without decoding it.
func spliceable(value []byte) bool { return registry.VersionOffset(value, canonicalHead) >= 0 }

const canonicalHead = `{"kind":"Endpoints","apiVersion":"v1","metadata":{`

func TestFinish(t *testing.T) {
	r := endpoints.Resource()
	for name, tc := range map[string]struct {
		value   string
		spliced bool // without decoding
	}{
		"canonical":                {canonicalHead + `"name":"a","namespace":"n","uid":"u","creationTimestamp":"2026-01-02T03:04:05Z"}}`, true},
		"generated, with selfLink": {canonicalHead + `"name":"a-1","generateName":"a-","namespace":"n","selfLink":"/a","uid":"u","creationTimestamp":"2026-01-02T03:04:05Z"}}`, true},
		"uid is last":              {canonicalHead + `"name":"a","uid":"u"}}`, true},
		"no uid":                   {canonicalHead + `"name":"a"}}`, false},
		"empty metadata":           {canonicalHead + `}}`, false},
		"uid only in a label":      {canonicalHead + `"name":"a","labels":{"uid":"l"}}}`, false},
		"label before the uid":     {canonicalHead + `"name":"a","labels":{"uid":"l"},"uid":"u"}}`, false},
		"list before the uid":      {canonicalHead + `"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"o"}],"uid":"u"}}`, false},
		"versioned":                {canonicalHead + `"name":"a","uid":"u","resourceVersion":"7"}}`, false},
		"versioned before the uid": {canonicalHead + `"name":"a","resourceVersion":"7","uid":"u"}}`, false},
		"other order":              {`{"apiVersion":"v1","kind":"Endpoints","metadata":{"uid":"u","name":"a"}}`, false},
		"spaces":                   {`{ "kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "a", "uid": "u"}}`, false},
		"without a kind":           {`{"metadata":{"name":"a","uid":"u"}}`, false},
		"escaped":                  {canonicalHead + `"name":"\u0061","uid":"u","labels":{"\u0075id":"l"}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			value := []byte(tc.value)
			got, err := r.Finish(value, 1234)
			if err != nil {
				t.Fatal(err)
			}
			if string(value) != tc.value {
				t.Errorf("the stored value became %s", value)
			}
			// Order and spelling of a value that is spliced are the value's own.
			want := reencoded(t, r, value, 1234)
			if same := bytes.Equal(got, want); !same && !sameJSON(t, got, want) || strings.Count(string(got), "resourceVersion") != 1 {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if spliced := spliceable(value); tc.spliced && !spliced {
				t.Error("finishing the value takes decoding it")
			}
			checkFinishesTo(t, r, value, 1234, got)
		})
	}
}

// checkFinishesTo changes the value, the revision and the finished JSON one at a time.
func checkFinishesTo(t testing.TB, r *registry.Resource, value []byte, revision int64, finished []byte) {
	t.Helper()
	if !r.FinishesTo(value, revision, finished) {
		t.Errorf("%s does not finish to %s", value, finished)
	}
	if r.FinishesTo(value, revision+1, finished) {
		t.Errorf("%s finishes to %s under another revision", value, finished)
	}
	for i := range finished {
		changed := bytes.Clone(finished)
		changed[i]++
		if r.FinishesTo(value, revision, changed) {
			t.Errorf("%s finishes to %s", value, changed)
		}
	}
	for _, other := range [][]byte{finished[:len(finished)-1], append(bytes.Clone(finished), ' '), nil} {
		if r.FinishesTo(value, revision, other) {
			t.Errorf("%s finishes to %s", value, other)
		}
	}
}

func sameJSON(t testing.TB, a, b []byte) bool {
	t.Helper()
	var values [2]any
	for i, data := range [][]byte{a, b} {
		if err := json.Unmarshal(data, &values[i]); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	}
	x, err := json.Marshal(values[0])
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(values[1])
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

func TestFinishRefusesWhatIsNoObject(t *testing.T) {
	r := endpoints.Resource()
	for _, value := range []string{``, `{`, `[]`, `"a"`, `{"kind":"Endpoints"`, canonicalHead + `"name":"a"`, canonicalHead + `"name":1}}`} {
		if got, err := r.Finish([]byte(value), 1); err == nil {
			t.Errorf("%q was finished as %s", value, got)
		}
	}
}

// Whatever passes validation is served as decoding and encoding it would.
func FuzzFinish(f *testing.F) {
	r := endpoints.Resource()
	f.Fuzz(func(t *testing.T, name, generateName, key, value, text, ip, manager string, revision int64) {
		if revision < 0 {
			t.Skip("etcd has no such revision")
		}
		obj := fuzzedEndpoints(name, generateName, key, value, text, ip, manager)
		if faults := r.Strategy.Validate(obj); len(faults) > 0 {
			t.Skip(faults.ToAggregate())
		}
		stored, err := r.Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		if !spliceable(stored) {
			t.Errorf("finishing takes decoding: %s", stored)
		}
		got, err := r.Finish(stored, revision)
		if err != nil {
			t.Fatal(err)
		}
		want := reencoded(t, r, stored, revision)
		if bytes.Contains(stored, []byte(`\ufffd`)) {
			// What is not UTF-8 is stored as this escape, which encoding again spells out.
			if !sameJSON(t, got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		} else if !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// fuzzedEndpoints puts the strings wherever they are valid, so that few inputs are wasted.
func fuzzedEndpoints(name, generateName, key, value, text, ip, manager string) *corev1.Endpoints {
	strategy := endpoints.Strategy{}
	obj := newEndpoints("a")
	obj.TypeMeta = metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"}
	obj.Namespace, obj.UID = "n", types.UID("11111111-2222-4333-8444-555555555555")
	obj.CreationTimestamp = metav1.Unix(1_700_000_000, 0)
	obj.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:subsets":{}}`),
	}}
	strategy.Default(obj)
	for _, change := range []func(*corev1.Endpoints){
		func(e *corev1.Endpoints) { e.Name = name },
		func(e *corev1.Endpoints) { e.GenerateName = generateName },
		func(e *corev1.Endpoints) { e.Labels = map[string]string{key: value} },
		func(e *corev1.Endpoints) { e.Labels = map[string]string{"uid": value} },
		func(e *corev1.Endpoints) { e.Annotations = map[string]string{key: text} },
		func(e *corev1.Endpoints) { e.Annotations = map[string]string{"uid": text, "k": manager} },
		func(e *corev1.Endpoints) { e.Finalizers = []string{"example.com/" + key} },
		func(e *corev1.Endpoints) {
			e.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "K", Name: text, UID: types.UID(manager)}}
		},
		func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = ip },
		func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].TargetRef = &corev1.ObjectReference{Name: text} },
	} {
		changed := obj.DeepCopy()
		change(changed)
		changed.SelfLink = endpoints.Resource().SelfLink(changed.Namespace, changed.Name)
		if len(strategy.Validate(changed)) == 0 {
			obj = changed
		}
	}
	return obj
}
