package mirror_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/registry/mirror"
	"github.com/berth-project/berth/pkg/registry/resources/endpoints"
	"github.com/berth-project/berth/pkg/registry/resources/endpointslices"
)

// byHand returns a slice of that name.
func byHand(t *testing.T, name, doc string) *discoveryv1.EndpointSlice {
	t.Helper()
	s := decode[discoveryv1.EndpointSlice](t, []byte(doc))
	s.Name, s.Namespace = name, "ns"
	if s.AddressType == "" {
		s.AddressType = "IPv4"
	}
	endpointslices.Strategy{}.Default(s)
	if errs := (endpointslices.Strategy{}).Validate(s); len(errs) > 0 {
		t.Fatalf("%s: %v", doc, errs.ToAggregate())
	}
	return s
}

func TestEndpoints(t *testing.T) {
	for name, tc := range map[string]struct {
		slices []string
		want   string // subsets
	}{
		"readiness": {
			[]string{`{"ports":[{"name":"http","port":80}],"endpoints":[
				{"addresses":["10.0.0.3"],"hostname":"c","nodeName":"n","targetRef":{"kind":"Pod","name":"p"}},
				{"addresses":["10.0.0.20","10.0.0.21"],"conditions":{"ready":true,"serving":false}},{"addresses":["10.0.0.1"],"conditions":{"ready":false}}]}`},
			`[{"addresses":[{"ip":"10.0.0.3","hostname":"c","nodeName":"n","targetRef":{"kind":"Pod","name":"p"}},{"ip":"10.0.0.20"}],
				"notReadyAddresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}]`,
		},
		"both families, one set": {
			[]string{
				`{"addressType":"IPv6","ports":[{"port":80,"appProtocol":"http"}],"endpoints":[{"addresses":["2001:db8::1"]}]}`,
				`{"ports":[{"port":80,"appProtocol":"http"}],"endpoints":[{"addresses":["10.0.0.1"]}]}`,
				`{"addressType":"FQDN","ports":[{"port":80}],"endpoints":[{"addresses":["a.example.com"]}]}`,
			},
			`[{"addresses":[{"ip":"10.0.0.1"},{"ip":"2001:db8::1"}],"ports":[{"port":80,"protocol":"TCP","appProtocol":"http"}]}]`,
		},
		"not ready wins, the first details count": {
			[]string{
				`{"ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"],"nodeName":"first"}]}`,
				`{"ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"],"nodeName":"second","conditions":{"ready":false}}]}`,
			},
			`[{"notReadyAddresses":[{"ip":"10.0.0.1","nodeName":"first"}],"ports":[{"port":80,"protocol":"TCP"}]}]`,
		},
		"ports that no subset can have": {
			[]string{
				`{"ports":[{"name":"a"},{"name":"b","port":70000}],"endpoints":[{"addresses":["10.0.0.1"]}]}`,
				`{"ports":[{"name":"a"},{"name":"b","port":81}],"endpoints":[{"addresses":["10.0.0.2"]}]}`,
			},
			`[{"addresses":[{"ip":"10.0.0.2"}],"ports":[{"name":"b","port":81,"protocol":"TCP"}]}]`,
		},
		"no ports": {[]string{`{"endpoints":[{"addresses":["10.0.0.1"]}]}`}, `[{"addresses":[{"ip":"10.0.0.1"}]}]`},
		"unnamed ports": {
			[]string{`{"ports":[{"port":90},{"name":"b","port":81},{"name":"a","port":80}],"endpoints":[{"addresses":["10.0.0.1"]}]}`},
			`[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":90,"protocol":"TCP"}]},
				{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"a","port":80,"protocol":"TCP"},{"name":"b","port":81,"protocol":"TCP"}]}]`,
		},
		"nothing": {[]string{`{"ports":[{"port":80}]}`}, `null`},
	} {
		t.Run(name, func(t *testing.T) {
			var list []*discoveryv1.EndpointSlice
			for i, doc := range tc.slices {
				list = append(list, byHand(t, fmt.Sprintf("s-%d", i), doc))
			}
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{"app": "web", discoveryv1.LabelSkipMirror: "no"}, Annotations: map[string]string{"a": "b"},
			}}
			got, err := mirror.Endpoints("ns", "web", service, list)
			want := &corev1.Endpoints{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", Labels: map[string]string{
					"app": "web", "endpointslice.kubernetes.io/skip-mirror": "true", "endpoints.kubernetes.io/managed-by": "endpointslices.berth",
				}},
				Subsets: *decode[[]corev1.EndpointSubset](t, []byte(tc.want)),
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			if len(service.Labels) != 2 {
				t.Errorf("the Service has the labels %v", service.Labels)
			}
		})
	}
}

func TestNoEndpoints(t *testing.T) {
	own := byHand(t, "own", `{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io"}},"endpoints":[{"addresses":["10.0.0.1"]}]}`)
	names := byHand(t, "names", `{"addressType":"FQDN","endpoints":[{"addresses":["a.example.com"]}]}`)
	if got, err := mirror.Endpoints("ns", "web", nil, []*discoveryv1.EndpointSlice{own, names}); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whatever slices there are, what shows them is valid, has nothing to do with their order, is
// never mirrored, and would be mirrored to what it shows.
func TestEndpointsOfRandomSlices(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRandom(seed)
		n := 0
		list := repeated(r, 6, func() *discoveryv1.EndpointSlice { n++; return r.slice(fmt.Sprintf("s-%d", n)) })
		e, err := mirror.Endpoints("ns", "web", nil, list)
		if err != nil {
			t.Fatal(err)
		}
		shuffle(r.Rand, list)
		again, err := mirror.Endpoints("ns", "web", nil, list)
		if diff := cmp.Diff(e, again); diff != "" || err != nil {
			t.Errorf("in another order: %v\n%s", err, diff)
		}
		if e == nil {
			continue
		}
		if errs := (endpoints.Strategy{}).Validate(e); len(errs) > 0 {
			t.Errorf("invalid: %v", errs.ToAggregate())
		}
		if mirror.Mirrors(e) || !mirror.IsDerived(labels.Set(e.Labels)) {
			t.Error("it is to be mirrored again")
		}
		if mirrored, _, err := mirror.Slices(e, nil); err != nil {
			t.Error(err)
		} else {
			checkSlices(t, mirrored, expect(e))
			if r.consistent { // else endpoints of several targets may be equal
				checkShown(t, mirrored, e)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, show(t, list))
		}
	}
}

// checkShown holds that the mirror of e, taken for slices by hand, is shown as e.
func checkShown(t *testing.T, mirrored []mirror.Slice, e *corev1.Endpoints) {
	t.Helper()
	var list []*discoveryv1.EndpointSlice
	for i, s := range mirrored {
		slice := s.DeepCopy()
		slice.Name, slice.Labels = fmt.Sprint(i), nil
		list = append(list, slice)
	}
	if len(list) == 0 {
		return
	}
	got, err := mirror.Endpoints("ns", "web", nil, list)
	if diff := cmp.Diff(e, got); diff != "" || err != nil {
		t.Errorf("shown again: %v (-want +got)\n%s", err, diff)
	}
}

// Slices of many ports and of many endpoints cannot multiply without end.
func TestTooManyShown(t *testing.T) {
	var list []*discoveryv1.EndpointSlice
	for i := range int32(200) {
		s := byHand(t, fmt.Sprintf("s-%03d", i), `{"ports":[{"port":80}]}`)
		s.Ports[0].Port = ptr.To(i + 1)
		for j := range 1000 {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i, j>>8, j&255)}})
		}
		list = append(list, s)
	}
	if e, err := mirror.Endpoints("ns", "web", nil, list); !errors.Is(err, mirror.ErrTooMany) || e != nil {
		t.Errorf("got %v", err)
	}
	if e, err := mirror.Endpoints("ns", "web", nil, list[:20]); err != nil || len(e.Subsets) != 20 {
		t.Errorf("20 slices: %v", err)
	}
}
