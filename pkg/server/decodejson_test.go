package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
)

// FuzzDecodeJSON holds the fast decoder to that of Kubernetes: what it takes, the other
// takes without a fault and to the same object.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a","labels":{"a":"b"},"creationTimestamp":"2023-03-28T13:55:52Z","managedFields":[{"fieldsV1":{"f:a":{}}}]},"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n","targetRef":{"kind":"Pod"}}],"ports":[{"port":80}]}]}`,
		`{"metadata":{"name":null,"deletionGracePeriodSeconds":1e1,"ownerReferences":[{"controller":true}]}}`,
		`{"metadata":{"Name":"a"}}`, `{"metadata":{"name":"a","name":"b"}}`, `{"subsets":[{"ports":[{"port":80.0}]}]}`,
		"{\"metadata\":{\"name\":\"\xff\"}}", `null`, `[]`, ` {} `, `{"subsets":[null]}`, `{"metadata":{"creationTimestamp":null}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var fast, slow corev1.Endpoints
		faults, err := decodeJSON(data, &fast)
		wantFaults, wantErr := kjson.UnmarshalStrict(data, &slow)
		if (err == nil) != (wantErr == nil) || len(faults) != len(wantFaults) {
			t.Fatalf("%q: got %v, %v; the decoder of Kubernetes says %v, %v", data, faults, err, wantFaults, wantErr)
		}
		if err != nil {
			return
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Fatalf("%q (-Kubernetes +ours):\n%s", data, diff)
		}
	})
}
