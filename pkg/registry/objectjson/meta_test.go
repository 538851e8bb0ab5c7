package objectjson_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/registry/objectjson"
)

const typical = `{"name":"web","namespace":"default","uid":"6f1c2f6e-8a52-4e0c-9d7c-0f3f5a1b2c3d","resourceVersion":"12","generation":1,"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app":"web"},"annotations":{"note":"a \"b\""},"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"web","uid":"u","controller":true}],"finalizers":["example.com/hold"],"managedFields":[{"manager":"kubectl","operation":"Update","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:subsets":{}}}]}`

func TestTypicalMetadataIsRead(t *testing.T) {
	if got := checkObjectMeta(t, []byte(typical)); got == nil || got.Labels["app"] != "web" {
		t.Errorf("got %v", got)
	}
}

// FuzzObjectMeta holds reading to sigs.k8s.io/json, and writing to encoding/json.
func FuzzObjectMeta(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { checkObjectMeta(t, data) })
}

// checkObjectMeta returns what was read, nil where data was refused.
func checkObjectMeta(t *testing.T, data []byte) *metav1.ObjectMeta {
	t.Helper()
	var got, want metav1.ObjectMeta
	reader := objectjson.NewReader(data)
	if !reader.ObjectMeta(&got) || !reader.End() {
		return nil
	}
	if faults, err := kjson.UnmarshalStrict(data, &want); err != nil || len(faults) > 0 {
		t.Fatalf("%q was taken, but Kubernetes finds %v, %v", data, faults, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q (-Kubernetes +ours):\n%s", data, cmp.Diff(want, got))
	}
	written, err := objectjson.AppendObjectMeta(nil, &got)
	if err != nil {
		t.Fatal(err)
	}
	if standard, err := json.Marshal(&got); err != nil || !bytes.Equal(written, standard) {
		t.Fatalf("wrote %s, want %s, %v", written, standard, err)
	}
	return &got
}

func TestValuesAreReadOneByOne(t *testing.T) {
	reader := objectjson.NewReader([]byte(` "a" 12 true null [ "b" ] "end"`))
	var text, end string
	var number int64
	var truth bool
	var list []string
	if !reader.String(&text) || !reader.Int64(&number) || !reader.Bool(&truth) || !reader.Null() ||
		!objectjson.List(&reader, &list, reader.String) || reader.End() || !reader.String(&end) || !reader.End() {
		t.Error("not everything was read")
	}
	if diff := cmp.Diff([]any{"a", int64(12), true, []string{"b"}, "end"}, []any{text, number, truth, list, end}); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}
