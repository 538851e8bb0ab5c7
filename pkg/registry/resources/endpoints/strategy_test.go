package endpoints

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/test/harness"
)

// long is one character too long for a label.
var long = strings.Repeat("a", 64)

// Texts that more than one case expects.
const (
	subdomainText = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`
	labelText     = `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`
	qualifiedText = `name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`
	valueText     = `a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`
)

// decode reads Endpoints as a server does: decoded, defaulted, in the namespace of the path.
func decode(t testing.TB, doc string) *corev1.Endpoints {
	t.Helper()
	var e corev1.Endpoints
	if err := json.Unmarshal([]byte(doc), &e); err != nil {
		t.Fatalf("decode %s: %v", doc, err)
	}
	e.Namespace = "ns"
	Strategy{}.Default(&e)
	return &e
}

func TestDefault(t *testing.T) {
	got := decode(t, `{"metadata":{"name":"x"},"subsets":[
		{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80},{"port":81,"protocol":"UDP"}]},
		{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":82}]}]}`)
	want := []corev1.EndpointSubset{
		{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}},
			Ports:     []corev1.EndpointPort{{Port: 80, Protocol: "TCP"}, {Port: 81, Protocol: "UDP"}},
		},
		{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}},
			Ports:     []corev1.EndpointPort{{Port: 82, Protocol: "TCP"}},
		},
	}
	if diff := cmp.Diff(want, got.Subsets); diff != "" {
		t.Errorf("subsets (-want +got):\n%s", diff)
	}
}

func TestPrepareChangesNothing(t *testing.T) {
	e := decode(t, `{"metadata":{"name":"x","generation":7},"subsets":[{"addresses":[{"ip":"10.0.0.1"}]}]}`)
	want := e.DeepCopy()
	Strategy{}.PrepareForCreate(e)
	Strategy{}.PrepareForUpdate(e, decode(t, `{"metadata":{"name":"x"},"subsets":[{"notReadyAddresses":[{"ip":"10.0.0.2"}]}]}`))
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("object (-want +got):\n%s", diff)
	}
}

var metadataCases = []struct {
	name     string
	metadata string
	want     []string
}{
	{"a dotted name", `{"name":"a.b.c"}`, nil},
	{"253 characters", `{"name":"` + strings.Repeat("b", 253) + `"}`, nil},
	{"no name", `{}`, []string{`FieldValueRequired metadata.name: Required value: name or generateName is required`}},
	{"upper case", `{"name":"Upper"}`, []string{`FieldValueInvalid metadata.name: Invalid value: "Upper": ` + subdomainText}},
	{"254 characters", `{"name":"` + strings.Repeat("a", 254) + `"}`, []string{
		`FieldValueInvalid metadata.name: Invalid value: "` + strings.Repeat("a", 254) + `": must be no more than 253 characters`,
	}},
	{"a bad generateName", `{"generateName":"Bad_","name":"Bad_x2x4z"}`, []string{
		`FieldValueInvalid metadata.generateName: Invalid value: "Bad_": ` + subdomainText,
		`FieldValueInvalid metadata.name: Invalid value: "Bad_x2x4z": ` + subdomainText,
	}},
	{"a generateName that no path can hold", `{"generateName":"ab%-","name":"x"}`, []string{
		`FieldValueInvalid metadata.generateName: Invalid value: "ab%-": may not contain '%'`,
	}},
	{"a label value", `{"name":"x","labels":{"app":"a b"}}`, []string{`FieldValueInvalid metadata.labels: Invalid value: "a b": ` + valueText}},
	{"a label key", `{"name":"x","labels":{"-app":"a"}}`, []string{`FieldValueInvalid metadata.labels: Invalid value: "-app": ` + qualifiedText}},
	{"a long label value", `{"name":"x","labels":{"app":"` + strings.Repeat("a", 64) + `"}}`, []string{
		`FieldValueInvalid metadata.labels: Invalid value: "` + strings.Repeat("a", 64) + `": must be no more than 63 bytes`,
	}},
	{"an annotation key", `{"name":"x","annotations":{"a b":"c"}}`, []string{`FieldValueInvalid metadata.annotations: Invalid value: "a b": ` + qualifiedText}},
	{"annotations of 256 KiB", `{"name":"x","annotations":{"big":"` + strings.Repeat("a", 256<<10-3) + `"}}`, nil},
	{"annotations over 256 KiB", `{"name":"x","annotations":{"big":"` + strings.Repeat("a", 256<<10-2) + `"}}`, []string{
		`FieldValueTooLong metadata.annotations: Too long: may not be more than 262144 bytes`,
	}},
	{"an owner without kind and uid", `{"name":"x","ownerReferences":[{"apiVersion":"v1","name":"web"}]}`, []string{
		`FieldValueRequired metadata.ownerReferences[0].kind: Required value: must not be empty`,
		`FieldValueRequired metadata.ownerReferences[0].uid: Required value: must not be empty`,
	}},
	{"two controllers", `{"name":"x","ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"a","uid":"1","controller":true},{"apiVersion":"v1","kind":"Service","name":"b","uid":"2","controller":true}]}`, []string{
		`FieldValueInvalid metadata.ownerReferences: Invalid value: [{"apiVersion":"v1","kind":"Service","name":"a","uid":"1","controller":true},{"apiVersion":"v1","kind":"Service","name":"b","uid":"2","controller":true}]: Only one reference can have Controller set to true. Found "true" in references for Service/a and Service/b`,
	}},
	{"an Event as the owner", `{"name":"x","ownerReferences":[{"apiVersion":"v1","kind":"Event","name":"a","uid":"1"}]}`, []string{
		`FieldValueInvalid metadata.ownerReferences[0]: Invalid value: {"apiVersion":"v1","kind":"Event","name":"a","uid":"1"}: /v1, Kind=Event is disallowed from being an owner`,
	}},
	{"standard finalizers", `{"name":"x","finalizers":["kubernetes","orphan","example.com/guard"]}`, nil},
	{"a finalizer without a domain", `{"name":"x","finalizers":["guard"]}`, []string{
		`FieldValueInvalid metadata.finalizers[0]: Invalid value: "guard": name is neither a standard finalizer name nor is it fully qualified`,
	}},
	{"a finalizer that is no name", `{"name":"x","finalizers":["example.com/a b"]}`, []string{
		`FieldValueInvalid metadata.finalizers: Invalid value: "example.com/a b": ` + qualifiedText,
	}},
	{"two finalizers that exclude each other", `{"name":"x","finalizers":["orphan","foregroundDeletion"]}`, []string{
		`FieldValueInvalid metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set`,
	}},
}

func TestValidateMetadata(t *testing.T) {
	for _, tc := range metadataCases {
		t.Run(tc.name, func(t *testing.T) {
			got := Strategy{}.Validate(decode(t, `{"metadata":`+tc.metadata+`}`))
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateNamespaceOfObject(t *testing.T) {
	got := Strategy{}.Validate(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	if diff := cmp.Diff([]string{"FieldValueRequired metadata.namespace: Required value"}, harness.Faults(got)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// address and port make a subset out of the one thing that a case is about.
func address(doc string) string { return `[{"addresses":[` + doc + `],"ports":[{"port":80}]}]` }
func port(doc string) string    { return `[{"addresses":[{"ip":"10.0.0.1"}],"ports":[` + doc + `]}]` }

// ip is what is said about the one address of a case.
func ip(value string, messages ...string) []string {
	var want []string
	for _, message := range messages {
		want = append(want, fmt.Sprintf("FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: %q: %s", value, message))
	}
	return want
}

const (
	garbageText  = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
	invalidText  = "must be a valid IP address"
	zerosText    = "must not have leading 0s"
	mappedText   = "must not be an IPv4-mapped IPv6 address"
	loopbackText = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
	localText    = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
	groupText    = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
)

var addressCases = []struct {
	ip   string
	want []string
}{
	{"10.0.0.1", nil},
	{"2001:db8::1", nil},
	{"2001:DB8::1", nil},
	{"2001:db8:0:0:0:0:0:1", nil},
	{"64:ff9b::1.2.3.4", nil},
	{"224.0.1.1", nil},
	{"255.255.255.255", nil},
	{"ff05::1", nil},
	{"not-an-ip", ip("not-an-ip", garbageText, invalidText)},
	{"", ip("", garbageText, invalidText)},
	{"10.0.0.1/32", ip("10.0.0.1/32", garbageText, invalidText)},
	{"10.0.0.256", ip("10.0.0.256", garbageText, invalidText)},
	{"fe80::1%eth0", ip("fe80::1%eth0", garbageText, invalidText)},
	{"2001:db8::1%eth0", ip("2001:db8::1%eth0", garbageText, invalidText)},
	{"127.0.0.1", ip("127.0.0.1", loopbackText)},
	{"::1", ip("::1", loopbackText)},
	{"169.254.169.254", ip("169.254.169.254", localText)},
	{"febf::1", ip("febf::1", localText)},
	{"224.0.0.1", ip("224.0.0.1", groupText)},
	{"ff02::1", ip("ff02::1", groupText)},
	{"0.0.0.0", ip("0.0.0.0", "may not be unspecified (0.0.0.0)")},
	{"::", ip("::", "may not be unspecified (::)")},
	{"010.000.000.001", ip("010.000.000.001", zerosText)},
	{"127.0.0.01", ip("127.0.0.01", zerosText, loopbackText)},
	{"00.0.0.0", ip("00.0.0.0", zerosText, "may not be unspecified (00.0.0.0)")},
	{"0fe80::1", ip("0fe80::1", zerosText, localText)},
	{"::ffff:1.2.3.4", ip("::ffff:1.2.3.4", mappedText)},
	{"::ffff:127.0.0.1", ip("::ffff:127.0.0.1", mappedText, loopbackText)},
	{"::ffff:127.0.0.01", ip("::ffff:127.0.0.01", zerosText, loopbackText)},
}

func TestValidateAddresses(t *testing.T) {
	for _, tc := range addressCases {
		t.Run(tc.ip, func(t *testing.T) {
			got := Strategy{}.Validate(decode(t, fmt.Sprintf(`{"metadata":{"name":"x"},"subsets":%s}`, address(fmt.Sprintf(`{"ip":%q}`, tc.ip)))))
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

var subsetCases = []struct {
	name    string
	subsets string
	want    []string
}{
	{"null", `null`, nil},
	{"no ports", `[{"addresses":[{"ip":"10.0.0.1"}]}]`, nil},
	{"repetitions", `[{"addresses":[{"ip":"10.0.0.1"},{"ip":"10.0.0.1"}],"notReadyAddresses":[{"ip":"10.0.0.1"}],"ports":[{"name":"a","port":80},{"name":"a","port":80}]}]`, nil},
	{"everything", `[{"addresses":[{"ip":"10.1.1.1","hostname":"h1","nodeName":"node-1.example.com","targetRef":{"kind":"","name":"Any Thing"}}],"ports":[{"name":"http","port":65535,"protocol":"SCTP","appProtocol":"kubernetes.io/h2c"},{"name":"1","port":1,"protocol":"UDP","appProtocol":"HTTP"}]}]`, nil},
	{"no addresses", `[{"addresses":[{"ip":"10.0.0.1"}]},{"ports":[{"port":80}]}]`, []string{
		"FieldValueRequired subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
	}},
	{"no ip", address(`{"hostname":"h"}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
		`FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "": must be a valid IP address`,
	}},
	{"hostname", address(`{"ip":"10.0.0.1","hostname":"Host.One"}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].hostname: Invalid value: "Host.One": ` + labelText,
	}},
	{"hostname with dots", address(`{"ip":"10.0.0.1","hostname":"host.one"}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].hostname: Invalid value: "host.one": must not contain dots`,
	}},
	{"nodeName", address(`{"ip":"10.0.0.1","nodeName":"Node_1"}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].nodeName: Invalid value: "Node_1": ` + subdomainText,
	}},
	{"empty nodeName", address(`{"ip":"10.0.0.1","nodeName":""}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].nodeName: Invalid value: "": ` + subdomainText,
	}},
	{"hostname, nodeName and a special ip", address(`{"ip":"0127.0.0.1","hostname":"-","nodeName":"-"}`), []string{
		`FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "0127.0.0.1": must not have leading 0s`,
		`FieldValueInvalid subsets[0].addresses[0].hostname: Invalid value: "-": ` + labelText,
		`FieldValueInvalid subsets[0].addresses[0].nodeName: Invalid value: "-": ` + subdomainText,
		`FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "0127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
	}},
	{"port 0", port(`{"port":0}`), []string{`FieldValueInvalid subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`}},
	{"port 65536", port(`{"port":65536}`), []string{`FieldValueInvalid subsets[0].ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive`}},
	{"no port", port(`{"name":"a"}`), []string{`FieldValueInvalid subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`}},
	{"protocol", port(`{"port":80,"protocol":"tcp"}`), []string{`FieldValueNotSupported subsets[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"`}},
	{"a port without a name", port(`{"name":"a","port":80},{"port":81}`), []string{`FieldValueRequired subsets[0].ports[1].name: Required value`}},
	{"port name", port(`{"name":"Service_0","port":80}`), []string{`FieldValueInvalid subsets[0].ports[0].name: Invalid value: "Service_0": ` + labelText}},
	{"a long port name", port(`{"name":"` + long + `","port":80}`), []string{
		`FieldValueInvalid subsets[0].ports[0].name: Invalid value: "` + long + `": must be no more than 63 characters`,
	}},
	{"appProtocol", port(`{"port":80,"appProtocol":"my company/proto"}`), []string{
		`FieldValueInvalid subsets[0].ports[0].appProtocol: Invalid value: "my company/proto": prefix part ` + subdomainText,
	}},
	{"empty appProtocol", port(`{"port":80,"appProtocol":""}`), []string{
		`FieldValueInvalid subsets[0].ports[0].appProtocol: Invalid value: "": name part must be non-empty`,
		`FieldValueInvalid subsets[0].ports[0].appProtocol: Invalid value: "": ` + qualifiedText,
	}},
	{"several faults", `[{"addresses":[{"ip":"127.0.0.1"},{"ip":"bad"}],"notReadyAddresses":[{"ip":"0.0.0.0"}],"ports":[{"port":-1,"protocol":"X"},{"name":"-","port":80}]}]`, []string{
		`FieldValueInvalid subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
		`FieldValueInvalid subsets[0].addresses[1].ip: Invalid value: "bad": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
		`FieldValueInvalid subsets[0].addresses[1].ip: Invalid value: "bad": must be a valid IP address`,
		`FieldValueInvalid subsets[0].notReadyAddresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
		`FieldValueRequired subsets[0].ports[0].name: Required value`,
		`FieldValueInvalid subsets[0].ports[0].port: Invalid value: -1: must be between 1 and 65535, inclusive`,
		`FieldValueNotSupported subsets[0].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`,
		`FieldValueInvalid subsets[0].ports[1].name: Invalid value: "-": ` + labelText,
	}},
}

func TestValidateSubsets(t *testing.T) {
	for _, tc := range subsetCases {
		t.Run(tc.name, func(t *testing.T) {
			got := Strategy{}.Validate(decode(t, `{"metadata":{"name":"x"},"subsets":`+tc.subsets+`}`))
			if diff := cmp.Diff(append([]string{}, tc.want...), harness.Faults(got)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// TestValidateWithoutDefault is about a port that skipped defaulting.
func TestValidateWithoutDefault(t *testing.T) {
	e := decode(t, `{"metadata":{"name":"x"},"subsets":`+port(`{"port":80}`)+`}`)
	e.Subsets[0].Ports[0].Protocol = ""
	want := []string{"FieldValueRequired subsets[0].ports[0].protocol: Required value"}
	if diff := cmp.Diff(want, harness.Faults(Strategy{}.Validate(e))); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestWarnings(t *testing.T) {
	e := decode(t, `{"metadata":{"name":"x"},"subsets":[
		{"addresses":[{"ip":"10.0.0.1"},{"ip":"2001:DB8::1"},{"ip":"2001:db8::1"}]},
		{"notReadyAddresses":[{"ip":"2001:db8:0::2"},{"ip":"010.0.0.1"},{"ip":"::ffff:1.2.3.4"},{"ip":"garbage"},{"ip":""},{"ip":"2001:db8::1%eth0"}]}]}`)
	want := []string{
		`subsets[0].addresses[1].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")`,
		`subsets[1].notReadyAddresses[0].ip: IPv6 address "2001:db8:0::2" should be in RFC 5952 canonical format ("2001:db8::2")`,
		`subsets[1].notReadyAddresses[1].ip: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1"`,
		`subsets[1].notReadyAddresses[2].ip: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4"`,
	}
	if diff := cmp.Diff(want, Strategy{}.Warnings(e, nil)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if got := (Strategy{}).Warnings(decode(t, `{"metadata":{"name":"x"}}`), nil); got != nil {
		t.Errorf("warnings of Endpoints without subsets: %q, want none", got)
	}
}

// A body of nothing but faults takes no memory for each of them.
func TestFaultsAreBounded(t *testing.T) {
	faulty := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Subsets: []corev1.EndpointSubset{{
		Addresses: make([]corev1.EndpointAddress, 5000), NotReadyAddresses: make([]corev1.EndpointAddress, 5000), Ports: make([]corev1.EndpointPort, 5000),
	}}}
	faulty.Subsets = append(faulty.Subsets, make([]corev1.EndpointSubset, 5000)...)
	if n := len(Strategy{}.Validate(faulty)); n < apierr.EnoughFaults || n > apierr.EnoughFaults+10 {
		t.Errorf("%d faults", n)
	}
	err := apierr.Invalid(schema.GroupKind{Kind: "Endpoints"}, "a", Strategy{}.Validate(faulty))
	if text := err.Error(); !strings.Contains(text, "and at least 7") || !strings.Contains(text, " more faults") {
		t.Errorf("got %.200s", text[len(text)-200:])
	}
}
