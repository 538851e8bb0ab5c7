package views

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	service   = `{"metadata":{"name":"a"},"spec":{"clusterIP":"None"}}`
	endpoints = `{"metadata":{"name":"a","uid":"1"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}]}`
	mirrored  = `{"metadata":{"name":"a-1","labels":{"kubernetes.io/service-name":"a","endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io"},` +
		`"ownerReferences":[{"uid":"1"}]},"endpoints":[{"addresses":["10.0.0.%d"]}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}`
)

// The checker finds what it is for.
func TestChecker(t *testing.T) {
	at := func(revision int64, key, value string) storage.Event {
		return storage.Event{KV: &storage.KeyValue{Key: "/registry/" + key, Value: []byte(value), ModRevision: revision}, Deleted: value == ""}
	}
	made := at(1, "services/default/a", service)
	for name, test := range map[string]struct {
		events []storage.Event
		faults []string
	}{
		"in step": {events: []storage.Event{made, at(2, "endpoints/default/a", endpoints), at(2, "endpointslices/default/a-1", fmt.Sprintf(mirrored, 1))}},
		"a mirror that comes later": {
			[]storage.Event{made, at(2, "endpoints/default/a", endpoints), at(3, "endpointslices/default/a-1", fmt.Sprintf(mirrored, 1))},
			[]string{
				"revision 2: default/a: the mirrors: want [10.0.0.1 http 80/TCP true], got []",
				"revision 3: default/a: the slice a-1 is written without its Endpoints",
			},
		},
		"another address": {
			[]storage.Event{made, at(2, "endpoints/default/a", endpoints), at(2, "endpointslices/default/a-1", fmt.Sprintf(mirrored, 2))},
			[]string{"revision 2: default/a: the mirrors: want [10.0.0.1 http 80/TCP true], got [10.0.0.2 http 80/TCP true]"},
		},
		"a key too many": {[]storage.Event{at(1, "berth/endpointslices/default/a", "1")}, []string{"the keys: want [], got [default/a true]"}},
	} {
		var got []string
		for _, fault := range NewChecker().Check(test.events) {
			got = append(got, fault.Error())
		}
		if diff := cmp.Diff(test.faults, got); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", name, diff)
		}
	}
}
