package object_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/object"
)

var codecTypes = []*object.Type{
	endpointsType(nil),
	{Kind: corev1.SchemeGroupVersion.WithKind("Namespace"), New: func() k8sruntime.Object { return &corev1.Namespace{} }},
	{Kind: coordinationv1.SchemeGroupVersion.WithKind("Lease"), New: func() k8sruntime.Object { return &coordinationv1.Lease{} }},
	{Kind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), New: func() k8sruntime.Object { return &discoveryv1.EndpointSlice{} }},
	{Kind: corev1.SchemeGroupVersion.WithKind("Event"), New: func() k8sruntime.Object { return &corev1.Event{} }},
	{Kind: eventsv1.SchemeGroupVersion.WithKind("Event"), New: func() k8sruntime.Object { return &eventsv1.Event{} }},
	{Kind: corev1.SchemeGroupVersion.WithKind("Service"), New: func() k8sruntime.Object { return &corev1.Service{} }},
}

var codecInputs = []string{
	`{}`, `null`, `[]`, `7`, ``, `{"kind":null,"apiVersion":null,"metadata":null,"subsets":null}`,
	`{"metadata":{"name":"a","Name":"b","labels":{"a":"b","a":"c"}},"subsets":[]}`, `{"metadata":{},"metadata":{"name":"x"}}`,
	`{"METADATA":{"name":"a"}}`, `{"metadata":{"generation":1.0}}`, `{"metadata":{"generation":1e2}}`, `{"metadata":{"generation":9223372036854775808}}`,
	`{"metadata":{"creationTimestamp":"2026-11-26T00:00:00Z","deletionTimestamp":null}}`, `{"metadata":{"creationTimestamp":""}}`,
	`{"metadata":{"creationTimestamp":"x"}}`, `{"metadata":{"labels":{"a":null,"b":7}}}`, `{"metadata":{"labels":{"a":null}}}`, `{"metadata":{"finalizers":[null,"a"]}}`,
	`{"metadata":{"ownerReferences":[null,{"uid":"a","controller":null}]}}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}},{"fieldsV1":null}]}}`,
	`{"subsets":[null,{"addresses":[null,{"ip":"1.2.3.4","nodeName":null,"targetRef":{}}],"ports":[{"port":80},null]}]}`,
	`{"subsets":[{"ports":[{"port":80.0}]}]}`, `{"subsets":[{"ports":[{"port":"80"}]}]}`, `{"subsets":[{"ports":[{"port":2147483648}]}]}`,
	"{\"metadata\":{\"name\":\"\xff\"}}", `{"metadata":{"name":"\ud800"}}`, `{"metadata":{"name":"\u0041\/"}}`, `{"metadata":{"name":"a"}} `, `{"metadata":{"name":"a"}}}`,
	`{"spec":{"renewTime":"2026-11-26T14:00:00.000000Z","leaseDurationSeconds":0}}`, `{"spec":{"renewTime":"2026-11-26T14:00:00Z"}}`, `{"spec":{"renewTime":null}}`,
	`{"spec":{"ports":[{"port":1,"targetPort":"http"},{"port":2,"targetPort":8080},{"targetPort":null}],"clusterIPs":null,"sessionAffinityConfig":{"clientIP":{"timeoutSeconds":null}}}}`,
	`{"spec":{"finalizers":["kubernetes",null]},"status":{"conditions":[{"lastTransitionTime":null}]}}`, `{"bogus":1}`,
	`{"eventTime":"2026-11-26T14:00:00.000001Z","firstTimestamp":null,"series":{"count":2,"lastObservedTime":null},"source":null,"involvedObject":{},"related":null}`,
	`{"eventTime":"2026-11-26T14:00:00Z"}`, `{"count":1.5}`, `{"addressType":"IPv4","ports":[{},null],"endpoints":[{"addresses":null,"conditions":{"ready":null},"hints":{"forZones":[null]}}]}`, `{"metadata":{"bogus":{"a":1}}}`,
}

// agree holds the decoders to what sigs.k8s.io/json makes of the same data.
func agree(t *testing.T, typ *object.Type, data []byte) {
	t.Helper()
	want := typ.New()
	wantFaults, wantErr := kjson.UnmarshalStrict(data, want)
	got, faults, err := typ.DecodeStrict(data)
	if (err == nil) != (wantErr == nil) || len(faults) != len(wantFaults) {
		t.Fatalf("%s of %q: %v, %v; want %v, %v", typ.Kind.Kind, data, faults, err, wantFaults, wantErr)
	}
	if err == nil && !sameJSON(t, got, want) {
		t.Fatalf("%s of %q: %#v, want %#v", typ.Kind.Kind, data, got, want)
	}
	want = typ.New()
	wantErr = kjson.UnmarshalCaseSensitivePreserveInts(data, want)
	got, err = typ.Decode(data)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("stored %s of %q: %v, want %v", typ.Kind.Kind, data, err, wantErr)
	}
	if err == nil && !sameJSON(t, got, want) {
		t.Fatalf("stored %s of %q: %#v, want %#v", typ.Kind.Kind, data, got, want)
	}
}

// sameJSON compares Go values, and what is served of them: an empty list and none may be
// the same there.
func sameJSON(t *testing.T, a, b k8sruntime.Object) bool {
	t.Helper()
	if reflect.DeepEqual(a, b) {
		return true
	}
	first, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(first) == string(second)
}

func TestDecodersAgree(t *testing.T) {
	for _, typ := range codecTypes {
		for _, input := range codecInputs {
			agree(t, typ, []byte(input))
		}
	}
}

func FuzzDecodersAgree(f *testing.F) {
	for _, input := range codecInputs {
		f.Add([]byte(input))
	}
	if value, err := os.ReadFile("testdata/endpoints.json"); err == nil {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range codecTypes {
			agree(t, typ, data)
		}
	})
}
