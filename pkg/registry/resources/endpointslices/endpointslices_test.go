package endpointslices

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
)

// decode returns a slice, valid except for what the JSON says, with its defaults.
func decode(t testing.TB, data string) *discoveryv1.EndpointSlice {
	t.Helper()
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", ResourceVersion: "7"}, AddressType: "IPv4"}
	if err := json.Unmarshal([]byte(data), slice); err != nil {
		t.Fatal(err)
	}
	Strategy{}.Default(slice)
	return slice
}

func checkFaults(t *testing.T, got field.ErrorList, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %v, want %q", got, want)
	}
	for i, fault := range got {
		if !strings.HasPrefix(fault.Error(), want[i]) {
			t.Errorf("got %q, want %q", fault, want[i])
		}
	}
}

func repeated(n int, text string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(text+",", n), ",") + "]"
}

func TestValidation(t *testing.T) {
	for name, tc := range map[string]struct {
		slice string
		want  []string
	}{
		"least":    {`{}`, nil},
		"no type":  {`{"addressType":"","endpoints":[{"addresses":["x"]},{}]}`, []string{`addressType: Required value`, `endpoints[1].addresses: Required value`}},
		"any type": {`{"addressType":"IP","endpoints":[{"addresses":["x"]}]}`, []string{`addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"`}},
		"families": {`{"endpoints":[{"addresses":["2001:db8::1","10.0.0.1","010.0.0.1"]}]}`, []string{
			`endpoints[0].addresses: Invalid value: "2001:db8::1": must be an IPv4 address`, `endpoints[0].addresses[2]: Invalid value: "010.0.0.1": must not have leading 0s`,
		}},
		"the other family": {`{"addressType":"IPv6","endpoints":[{"addresses":["10.0.0.1","2001:DB8::1","::ffff:10.0.0.1","2001:db8::1"]}]}`, []string{
			`endpoints[0].addresses: Invalid value: "10.0.0.1": must be an IPv6 address`, `endpoints[0].addresses[1]: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")`,
			`endpoints[0].addresses[2]: Invalid value: "::ffff:10.0.0.1": must not be an IPv4-mapped`,
		}},
		"names":         {`{"addressType":"FQDN","endpoints":[{"addresses":["a.b","localhost"]}]}`, []string{`endpoints[0].addresses[1]: Invalid value: "localhost": should be a domain with at least two segments`}},
		"many":          {`{"endpoints":` + repeated(1000, `{"addresses":["10.0.0.1"]}`) + `}`, nil},
		"too many":      {`{"endpoints":` + repeated(1001, `{"addresses":["127.0.0.1"]}`) + `}`, []string{`endpoints: Too many: 1001: must have at most 1000 items`}},
		"addresses":     {`{"endpoints":[{"addresses":` + repeated(101, `"10.0.0.1"`) + `}]}`, []string{`endpoints[0].addresses: Too many: 101: must have at most 100 items`}},
		"ports":         {`{"ports":[{},{"name":"A","port":70000},{"name":""},{"name":"a","protocol":"tcp"},{"name":"b","appProtocol":"x y"}]}`, []string{`ports[1].name: Invalid value: "A"`, `ports[2].name: Duplicate value: ""`, `ports[3].protocol: Unsupported value: "tcp"`, `ports[4].appProtocol: Invalid value: "x y"`}},
		"hosts":         {`{"endpoints":[{"addresses":["10.0.0.1"],"hostname":"a.b","nodeName":"N"}]}`, []string{`endpoints[0].nodeName: Invalid value: "N"`, `endpoints[0].hostname: Invalid value: "a.b": must not contain dots`}},
		"hints":         {`{"endpoints":[{"addresses":["10.0.0.1"],"hints":{"forZones":[{"name":"a"},{"name":"a"}],"forNodes":[{"name":"N"}]}}]}`, []string{`endpoints[0].hints.forZones[1].name: Duplicate value: "a"`, `endpoints[0].hints.forNodes[0].name: Invalid value: "N"`}},
		"zones":         {`{"endpoints":[{"addresses":["10.0.0.1"],"hints":{"forZones":` + repeated(9, `{"name":"a"}`) + `}}]}`, []string{`endpoints[0].hints.forZones: Too many: 9`}},
		"nodes":         {`{"endpoints":[{"addresses":["10.0.0.1"],"hints":{"forNodes":` + repeated(9, `{"name":"a"}`) + `}}]}`, []string{`endpoints[0].hints.forNodes: Too many: 9`}},
		"name of a set": {`{"metadata":{"name":"a.b-1","namespace":"ns"}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			slice := decode(t, tc.slice)
			Strategy{}.PrepareForCreate(slice)
			got := Strategy{}.Validate(slice)
			checkFaults(t, got, tc.want)
		})
	}
}

// A body full of faults is not answered with all of them.
func TestFaultsAreBounded(t *testing.T) {
	slice := decode(t, `{"endpoints":`+repeated(1000, `{"addresses":`+repeated(100, `"127.0.0.1"`)+`}`)+`,"ports":`+repeated(20_000, `{"name":"A"}`)+`}`)
	if n := len(Strategy{}.Validate(slice)); n > 2500 {
		t.Errorf("%d faults", n)
	}
	slice.Ports = append(slice.Ports, slice.Ports[0])
	checkFaults(t, validatePorts(slice.Ports), []string{"ports: Too many: 20001"})
}

func TestUpdate(t *testing.T) {
	old := decode(t, `{"metadata":{"name":"s","namespace":"ns","resourceVersion":"7","generation":3,"labels":{"a":"b"}},"endpoints":[{"addresses":["127.0.0.1"]}]}`)
	for name, tc := range map[string]struct {
		edit       func(*discoveryv1.EndpointSlice)
		generation int64
		want       []string
	}{
		"nothing":    {func(*discoveryv1.EndpointSlice) {}, 3, nil},
		"annotation": {func(s *discoveryv1.EndpointSlice) { s.Annotations = map[string]string{"a": "b"} }, 3, nil},
		"label":      {func(s *discoveryv1.EndpointSlice) { s.Labels = map[string]string{"a": "c"} }, 4, nil},
		"port": {func(s *discoveryv1.EndpointSlice) {
			s.Ports = []discoveryv1.EndpointPort{{Name: new(string)}}
			Strategy{}.Default(s)
		}, 4, nil},
		"endpoint": {func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}}, {Addresses: []string{"10.0.0.1"}}}
		}, 4, []string{`endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range`}},
		"type":    {func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPv6" }, 4, []string{`addressType: Invalid value: null: field is immutable`}},
		"no type": {func(s *discoveryv1.EndpointSlice) { s.AddressType = "" }, 4, []string{`addressType: Required value`, `addressType: Invalid value: null: field is immutable`}},
		"an unknown type": {func(s *discoveryv1.EndpointSlice) { s.AddressType = "X" }, 4, []string{
			`addressType: Unsupported value: "X"`, `addressType: Invalid value: null: field is immutable`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			slice, before := old.DeepCopy(), old.DeepCopy()
			tc.edit(slice)
			Strategy{}.PrepareForUpdate(slice, old)
			checkFaults(t, Strategy{}.ValidateUpdate(slice, old), tc.want)
			if slice.Generation != tc.generation || !cmp.Equal(before, old) {
				t.Errorf("generation %d, want %d", slice.Generation, tc.generation)
			}
		})
	}
}

// What the version has no more is dropped, in a copy where others share the list.
func TestTopologyIsDropped(t *testing.T) {
	slice := decode(t, `{"ports":[],"endpoints":[{"addresses":["10.0.0.1"],"zone":"z"},{"addresses":["10.0.0.2"],"deprecatedTopology":{"a":"b"}}]}`)
	given := slice.Endpoints
	Strategy{}.PrepareForCreate(slice)
	if slice.Endpoints[1].DeprecatedTopology != nil || given[1].DeprecatedTopology == nil || *slice.Endpoints[0].Zone != "z" || slice.Ports != nil {
		t.Errorf("the slice is %+v", slice)
	}
}

func TestWarnings(t *testing.T) {
	for slice, want := range map[string]int{
		`{"endpoints":[{"addresses":["10.0.0.1","010.0.0.1"]}]}`: 1,
		`{"endpoints":[{"addresses":["x"]}]}`:                    0,
		`{"addressType":"FQDN"}`:                                 1,
		`{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}},"endpoints":[{"addresses":["010.0.0.1"]}]}`: 0,
	} {
		s := decode(t, slice)
		if got := (Strategy{}).Warnings(s, nil); len(got) != want {
			t.Errorf("%s: got %q, want %d", slice, got, want)
		}
		if got := (Strategy{}).Warnings(s, s); s.AddressType == "FQDN" && got != nil {
			t.Errorf("an update is warned of: %q", got)
		}
	}
}

func TestTable(t *testing.T) {
	for slice, want := range map[string][]any{
		`{}`: {"s", "IPv4", "<unset>", "<unset>", registry.Age},
		`{"ports":[{"port":80},{"name":"any"},{"port":443,"name":"b"},{"port":1,"name":"c"}],"endpoints":[{"addresses":["10.0.0.1","10.0.0.2"]},{"addresses":["10.0.0.3","10.0.0.4"]},{"addresses":["10.0.0.5"]}]}`: {
			"s", "IPv4", "80,any,443 + 1 more...", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...", registry.Age,
		},
		`{"ports":[{}]}`: {"s", "IPv4", "<unset>", "<unset>", registry.Age},
	} {
		if diff := cmp.Diff(want, cells(decode(t, slice))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", slice, diff)
		}
	}
}

// Whatever a client sends, no rule panics, and the quick question never passes an address that the
// slow rules refuse.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"addressType":"IPv6","endpoints":[{"addresses":["2001:db8::1","::ffff:1.2.3.4"],"hints":{"forZones":[{"name":""}]}}],"ports":[{}]}`))
	f.Add([]byte(`{"addressType":"FQDN","endpoints":[{"addresses":["a.b"],"deprecatedTopology":{"a":"b"}},{"addresses":null,"hostname":""}],"ports":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var slice discoveryv1.EndpointSlice
		if json.Unmarshal(data, &slice) != nil {
			return
		}
		s := Strategy{}
		s.Default(&slice)
		s.PrepareForCreate(&slice)
		_ = fmt.Sprint(s.Validate(&slice).ToAggregate())
		s.Warnings(&slice, nil)
		cells(&slice)
		old := slice.DeepCopy()
		s.PrepareForUpdate(&slice, old)
		for _, fault := range s.ValidateUpdate(&slice, old) {
			if strings.HasPrefix(fault.Field, "endpoints") {
				t.Errorf("an update that changes nothing: %v", fault)
			}
		}
		for _, endpoint := range slice.Endpoints {
			for i, address := range endpoint.Addresses {
				for _, addressType := range addressTypes {
					if faults := validateAddress(address, addressType, endpointsPath, i); isValidAddress(address, addressType) && len(faults) > 0 {
						t.Errorf("%s %q: %v", addressType, address, faults)
					}
				}
			}
		}
	})
}
