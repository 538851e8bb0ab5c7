package services

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
)

// decode returns a Service of JSON's spec, with its defaults.
func decode(t testing.TB, spec string) *corev1.Service {
	t.Helper()
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "u", ResourceVersion: "7"}}
	if err := json.Unmarshal([]byte(spec), &service.Spec); err != nil {
		t.Fatal(err)
	}
	Strategy{}.Default(service)
	return service
}

// stored returns a Service as it is stored, which must be valid.
func stored(t testing.TB, spec string) *corev1.Service {
	t.Helper()
	service := decode(t, spec)
	Strategy{}.PrepareForCreate(service)
	if errs := (Strategy{}).Validate(service); len(errs) > 0 {
		t.Fatal(errs)
	}
	return service
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

// addresses is what settle decides on.
func addresses(service *corev1.Service) string {
	spec := &service.Spec
	data, _ := json.Marshal(map[string]any{"ip": spec.ClusterIP, "ips": spec.ClusterIPs, "families": spec.IPFamilies, "policy": spec.IPFamilyPolicy})
	return string(data)
}

func TestAddresses(t *testing.T) {
	for name, tc := range map[string]struct{ spec, want string }{
		"headless, selected":   {`{"clusterIP":"None","selector":{"a":"b"}}`, `{"families":["IPv4"],"ip":"None","ips":["None"],"policy":"SingleStack"}`},
		"headless, by hand":    {`{"clusterIP":"None"}`, `{"families":["IPv4","IPv6"],"ip":"None","ips":["None"],"policy":"RequireDualStack"}`},
		"nothing":              {`{"selector":{"a":"b"}}`, `{"families":["IPv4"],"ip":"None","ips":["None"],"policy":"SingleStack"}`},
		"one family by hand":   {`{"ipFamilies":["IPv6"]}`, `{"families":["IPv6","IPv4"],"ip":"None","ips":["None"],"policy":"RequireDualStack"}`},
		"IPv6":                 {`{"clusterIP":"fd00::1","ports":[{"port":1}]}`, `{"families":["IPv6"],"ip":"fd00::1","ips":["fd00::1"],"policy":"SingleStack"}`},
		"two of one":           {`{"clusterIP":"10.0.0.1","ipFamilyPolicy":"PreferDualStack","ports":[{"port":1}]}`, `{"families":["IPv4","IPv6"],"ip":"10.0.0.1","ips":["10.0.0.1"],"policy":"PreferDualStack"}`},
		"two":                  {`{"clusterIP":"fd00::1","clusterIPs":["fd00::1","10.0.0.1"],"ipFamilyPolicy":"RequireDualStack","ports":[{"port":1}]}`, `{"families":["IPv6","IPv4"],"ip":"fd00::1","ips":["fd00::1","10.0.0.1"],"policy":"RequireDualStack"}`},
		"a name":               {`{"type":"ExternalName","externalName":"a.b"}`, `{"families":null,"ip":"","ips":null,"policy":null}`},
		"ports without an IP":  {`{"type":"NodePort","ports":[{"port":1}]}`, `{"families":["IPv4"],"ip":"","ips":null,"policy":"SingleStack"}`},
		"balancer, two stacks": {`{"type":"LoadBalancer","ipFamilyPolicy":"PreferDualStack","ports":[{"port":1}]}`, `{"families":["IPv4","IPv6"],"ip":"","ips":null,"policy":"PreferDualStack"}`},
	} {
		t.Run(name, func(t *testing.T) {
			service := stored(t, tc.spec)
			if diff := cmp.Diff(tc.want, addresses(service)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			again := service.DeepCopy()
			Strategy{}.PrepareForUpdate(again, service)
			if diff := cmp.Diff(service, again); diff != "" {
				t.Errorf("an update that changes nothing (-before +after)\n%s", diff)
			}
		})
	}
}

// Every message is in the cases of test/conformance, too, or follows from one that is.
func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		spec string
		want []string
	}{
		"addresses before all else": {`{"clusterIP":"x","ports":[{"port":0}]}`, []string{`spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address`}},
		"None twice":                {`{"clusterIP":"None","clusterIPs":["None","None"]}`, []string{`spec.clusterIPs: Invalid value: ["None","None"]: 'None' must be the first`, `spec.clusterIPs[1]: Invalid value: "None"`}},
		"None behind an address":    {`{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","None"],"ipFamilyPolicy":"RequireDualStack"}`, []string{`spec.clusterIPs[1]: Invalid value: "None"`}},
		"three addresses": {`{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1","10.0.0.2"],"ipFamilyPolicy":"RequireDualStack"}`, []string{
			`spec.clusterIPs: Invalid value: ["10.0.0.1","fd00::1","10.0.0.2"]: may only hold up to 2 values`,
		}},
		"two stacks on one": {`{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ipFamilies":["IPv4","IPv6"]}`, []string{
			`spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs`,
			`spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families`,
		}},
		"no type": {`{"type":"X","clusterIP":"10.0.0.1","ports":[{"port":1}]}`, []string{`spec.type: Unsupported value: "X"`}},
		"ports beside each other": {`{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"name":"a","port":1,"nodePort":5},{"name":"a","port":1,"nodePort":5},{"name":"c","port":2,"nodePort":70000}]}`, []string{
			`spec.ports[1].name: Duplicate value: "a"`, `spec.ports[1].nodePort: Duplicate value: 5`, `spec.ports[2].nodePort: Invalid value: 70000`, `spec.ports[1]: Duplicate value: {"Name":""`,
		}},
		"annotations": {`{"clusterIP":"None"}`, nil},
		"affinity":    {`{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":0}}}`, []string{`spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0`}},
		"policies": {`{"clusterIP":"10.0.0.1","externalIPs":["192.0.2.1"],"externalTrafficPolicy":"X","ports":[{"port":1}]}`, []string{
			`spec.externalTrafficPolicy: Unsupported value: "X": supported values: "Cluster", "Local"`,
		}},
		"health checks":                  {`{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":70000,"ports":[{"port":1}]}`, []string{`spec.healthCheckNodePort: Invalid value: 70000`}},
		"no health checks are allocated": {`{"type":"LoadBalancer","externalTrafficPolicy":"Local","ports":[{"port":1}]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			service := decode(t, tc.spec)
			Strategy{}.PrepareForCreate(service)
			checkFaults(t, Strategy{}.Validate(service), tc.want)
		})
	}
}

func TestUpdates(t *testing.T) {
	for name, tc := range map[string]struct {
		old, spec, want string // want: addresses, where there are no faults
		faults          []string
	}{
		"left out": {`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`, `{"ports":[{"port":2}]}`, `{"families":["IPv4"],"ip":"10.0.0.1","ips":["10.0.0.1"],"policy":"SingleStack"}`, nil},
		"changed":  {`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`, `{"clusterIP":"10.0.0.2","ports":[{"port":1}]}`, "", []string{`spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set`}},
		"to None":  {`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`, `{"clusterIP":"None","ports":[{"port":1}]}`, "", []string{`spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set`}},
		"second":   {`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`, `{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ipFamilyPolicy":"PreferDualStack","ports":[{"port":1}]}`, `{"families":["IPv4","IPv6"],"ip":"10.0.0.1","ips":["10.0.0.1","fd00::1"],"policy":"PreferDualStack"}`, nil},
		"released": {`{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ipFamilyPolicy":"RequireDualStack","ports":[{"port":1}]}`, `{"ipFamilyPolicy":"SingleStack","ipFamilies":["IPv4","IPv6"],"ports":[{"port":1}]}`, `{"families":["IPv4"],"ip":"10.0.0.1","ips":["10.0.0.1"],"policy":"SingleStack"}`, nil},
		"released without a word": {`{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ipFamilyPolicy":"RequireDualStack","ports":[{"port":1}]}`, `{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"ports":[{"port":1}]}`, "", []string{
			`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": must be 'SingleStack' to release the secondary cluster IP`,
		}},
		"to a name":   {`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`, `{"type":"ExternalName","externalName":"a.b"}`, `{"families":null,"ip":"","ips":null,"policy":null}`, nil},
		"from a name": {`{"type":"ExternalName","externalName":"a.b"}`, `{"selector":{"a":"b"}}`, `{"families":["IPv4"],"ip":"None","ips":["None"],"policy":"SingleStack"}`, nil},
		"class":       {`{"type":"LoadBalancer","loadBalancerClass":"a/b","ports":[{"port":1}]}`, `{"type":"LoadBalancer","ports":[{"port":1}]}`, "", []string{`spec.loadBalancerClass: Invalid value: null: may not change once set`}},
		"health checks": {`{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":5,"ports":[{"port":1}]}`, `{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":6,"ports":[{"port":1}]}`, "", []string{
			`spec.healthCheckNodePort: Forbidden: field is immutable`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			old, service := stored(t, tc.old), decode(t, tc.spec)
			before := old.DeepCopy()
			Strategy{}.PrepareForUpdate(service, old)
			checkFaults(t, Strategy{}.ValidateUpdate(service, old), tc.faults)
			if got := addresses(service); tc.faults == nil && got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if diff := cmp.Diff(before, old); diff != "" {
				t.Errorf("what is stored has changed:\n%s", diff)
			}
		})
	}
}

// A change of the type drops what it leaves without a meaning, unless that was changed, too.
func TestChangeOfType(t *testing.T) {
	old := stored(t, `{"type":"LoadBalancer","clusterIP":"10.0.0.1","loadBalancerClass":"a/b","externalTrafficPolicy":"Local","healthCheckNodePort":5,"ports":[{"port":1,"nodePort":31000}]}`)
	old.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "a.b"}}
	service := old.DeepCopy()
	service.Spec.Type = corev1.ServiceTypeClusterIP
	Strategy{}.PrepareForUpdate(service, old)
	checkFaults(t, Strategy{}.ValidateUpdate(service, old), nil)
	if diff := cmp.Diff(stored(t, `{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`), service); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	service = old.DeepCopy()
	service.Spec.Type = corev1.ServiceTypeClusterIP
	service.Spec.Ports[0].NodePort = 31001
	Strategy{}.PrepareForUpdate(service, old)
	checkFaults(t, Strategy{}.ValidateUpdate(service, old), []string{`spec.ports[0].nodePort: Forbidden`})
}

func TestNodePortsStay(t *testing.T) {
	old := stored(t, `{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"name":"a","port":1,"nodePort":31000},{"name":"b","port":2,"nodePort":31001}]}`)
	service := decode(t, `{"type":"NodePort","ports":[{"name":"a","port":7},{"name":"c","port":2,"nodePort":31001},{"name":"b","port":3}]}`)
	Strategy{}.PrepareForUpdate(service, old)
	checkFaults(t, Strategy{}.ValidateUpdate(service, old), nil)
	if ports := service.Spec.Ports; ports[0].NodePort != 31000 || ports[2].NodePort != 0 {
		t.Errorf("the ports are %+v", ports)
	}
}

func TestStatus(t *testing.T) {
	old := stored(t, `{"type":"LoadBalancer","clusterIP":"10.0.0.1","ports":[{"port":1}]}`)
	service := decode(t, `{"clusterIP":"10.0.0.9"}`)
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "x"}, {Hostname: "1.2.3.4"}, {Hostname: "A"}, {IP: "1.2.3.4", IPMode: new(corev1.LoadBalancerIPMode)}}
	statusStrategy{}.PrepareForUpdate(service, old)
	if diff := cmp.Diff(old.Spec, service.Spec); diff != "" {
		t.Errorf("a write of the status changes the spec:\n%s", diff)
	}
	checkFaults(t, statusStrategy{}.ValidateUpdate(service, old), []string{
		`status.loadBalancer.ingress[0].ip: Invalid value: "x"`, `status.loadBalancer.ingress[0].ipMode: Required value: must be specified when`,
		`status.loadBalancer.ingress[1].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address`,
		`status.loadBalancer.ingress[2].hostname: Invalid value: "A"`, `status.loadBalancer.ingress[3].ipMode: Unsupported value: ""`,
	})
}

func TestWarnings(t *testing.T) {
	const allocates = "this server allocates no addresses"
	for spec, want := range map[string][]string{
		`{}`: nil,
		`{"clusterIP":"10.0.0.1","ports":[{"port":1}]}`:                                                                                  nil,
		`{"type":"NodePort","ports":[{"port":1}]}`:                                                                                       {allocates},
		`{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":1,"nodePort":31000}]}`:                                               nil,
		`{"type":"LoadBalancer","clusterIP":"10.0.0.1","ports":[{"port":1}]}`:                                                            {allocates},
		`{"type":"LoadBalancer","clusterIP":"10.0.0.1","allocateLoadBalancerNodePorts":false,"ports":[{"port":1}]}`:                      nil,
		`{"clusterIP":"10.0.0.1","ipFamilyPolicy":"PreferDualStack","ports":[{"port":1}]}`:                                               {allocates},
		`{"type":"ExternalName","externalName":"a.b"}`:                                                                                   nil,
		`{"loadBalancerIP":"1.2.3.4","externalIPs":["192.0.2.1"],"sessionAffinity":"ClientIP","externalName":"a.b"}`:                     {"spec.loadBalancerIP is ignored", "spec.externalIPs is ignored for headless", "spec.SessionAffinity is ignored", "spec.externalName is ignored"},
		`{"type":"ExternalName","externalName":"a.b","externalIPs":["2001:DB8::1"],"loadBalancerIP":"x"}`:                                {`spec.externalIPs[0]: IPv6 address "2001:DB8::1" should be`, `spec.externalIPs is ignored when spec.type is "ExternalName"`},
		`{"type":"LoadBalancer","clusterIP":"10.0.0.1","loadBalancerSourceRanges":["x","10.0.0.1/8"],"ports":[{"port":1,"nodePort":1}]}`: {"spec.loadBalancerSourceRanges[1]"},
	} {
		got := Strategy{}.Warnings(decodeAndSettle(t, spec), nil)
		if len(got) != len(want) {
			t.Errorf("%s: got %q, want %q", spec, got, want)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%s: got %q, want %q", spec, got[i], want[i])
			}
		}
	}
}

func TestWarningsOfUpdates(t *testing.T) {
	lacking, complete := `{"type":"NodePort","ports":[{"port":1}]}`, `{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":1,"nodePort":31000}]}`
	for _, tc := range []struct {
		old, spec string
		want      int
	}{{lacking, lacking, 0}, {complete, lacking, 1}, {`{}`, lacking, 1}, {lacking, complete, 0}} {
		if got := (Strategy{}).Warnings(decodeAndSettle(t, tc.spec), decodeAndSettle(t, tc.old)); len(got) != tc.want {
			t.Errorf("from %s to %s: got %q, want %d", tc.old, tc.spec, got, tc.want)
		}
	}
}

func decodeAndSettle(t *testing.T, spec string) *corev1.Service {
	t.Helper()
	service := decode(t, spec)
	Strategy{}.PrepareForCreate(service)
	return service
}

func TestTable(t *testing.T) {
	for spec, want := range map[string][]any{
		`{}`: {"web", "ClusterIP", "None", "<none>", "<none>", registry.Age, "<none>"},
		`{"type":"NodePort","ports":[{"port":80,"nodePort":31000},{"port":53,"protocol":"UDP"}],"selector":{"b":"2","a":"1"}}`: {"web", "NodePort", "<none>", "<none>", "80:31000/TCP,53/UDP", registry.Age, "a=1,b=2"},
		`{"type":"LoadBalancer","externalIPs":["192.0.2.7"]}`:                                                                  {"web", "LoadBalancer", "<none>", "192.0.2.7", "<none>", registry.Age, "<none>"},
		`{"type":"LoadBalancer"}`:                      {"web", "LoadBalancer", "<none>", "<pending>", "<none>", registry.Age, "<none>"},
		`{"type":"ExternalName","externalName":"a.b"}`: {"web", "ExternalName", "<none>", "a.b", "<none>", registry.Age, "<none>"},
		`{"type":"X"}`:                                 {"web", "X", "<none>", "<unknown>", "<none>", registry.Age, "<none>"},
	} {
		if diff := cmp.Diff(want, cells(decodeAndSettle(t, spec))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", spec, diff)
		}
	}
	balancer := decodeAndSettle(t, `{"type":"LoadBalancer","externalIPs":["192.0.2.7"]}`)
	balancer.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "b"}, {IP: "1.2.3.4"}, {Hostname: "b"}}
	if got := cells(balancer)[3]; got != "1.2.3.4,b,192.0.2.7" {
		t.Errorf("the addresses are %q", got)
	}
}

// Whatever a client sends, no rule panics, a second default changes nothing, and what is valid can
// be stored again.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"spec":{"clusterIP":"10.0.0.1","ipFamilies":["IPv4"],"ports":[{"port":80,"targetPort":"http"}]}}`), []byte(`{"spec":{"type":"ExternalName","externalName":"a.b"}}`))
	f.Add([]byte(`{"spec":{"type":"LoadBalancer","clusterIPs":["fd00::1","None"],"ipFamilyPolicy":"PreferDualStack","loadBalancerSourceRanges":["x"]}}`), []byte(`{"spec":null}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var old, service corev1.Service
		if json.Unmarshal(one, &old) != nil || json.Unmarshal(two, &service) != nil {
			return
		}
		s := Strategy{}
		for _, each := range []*corev1.Service{&old, &service} {
			s.Default(each)
			once := each.DeepCopy()
			if s.Default(each); !cmp.Equal(once, each) {
				t.Errorf("a second default changes %+v", once)
			}
		}
		s.PrepareForCreate(&old)
		if errs := s.Validate(&old); len(errs) > 0 {
			_ = errs.ToAggregate().Error()
			return
		}
		s.Warnings(&old, nil)
		cells(&old)
		old.ResourceVersion = "1"
		again := old.DeepCopy()
		s.PrepareForUpdate(again, &old)
		if errs := s.ValidateUpdate(again, &old); len(errs) > 0 || !cmp.Equal(again.Spec, old.Spec) {
			t.Errorf("what is stored is changed to %+v, or invalid: %v", again.Spec, errs)
		}
		s.PrepareForUpdate(&service, &old)
		if errs := s.ValidateUpdate(&service, &old); len(errs) == 0 {
			s.Warnings(&service, &old)
			cells(&service)
		}
		statusStrategy{}.PrepareForUpdate(&service, &old)
		statusStrategy{}.ValidateUpdate(&service, &old)
		statusStrategy{}.Warnings(&service, &old)
	})
}
