package feeds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/feeds"
	"github.com/berth-project/berth/pkg/server/stream"
)

// group is a target group as Prometheus reads it.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func newType(budget *object.Budget) *object.Type {
	return &object.Type{
		Kind: corev1.SchemeGroupVersion.WithKind("Endpoints"), Forms: budget,
		New: func() runtime.Object { return &corev1.Endpoints{} },
	}
}

// stored returns the object as it is in the cache at the revision.
func stored(t testing.TB, kind *object.Type, revision int64, e corev1.Endpoints) *object.Object {
	t.Helper()
	e.SetGroupVersionKind(kind.Kind)
	value, err := kind.Encode(&e)
	if err != nil {
		t.Fatal(err)
	}
	at := object.Identity{Key: "/registry/endpoints/" + e.Namespace + "/" + e.Name, Namespace: e.Namespace, Name: e.Name, Revision: revision, CreateRevision: 1}
	o, err := object.Written(kind, at, value)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func parse(t testing.TB, raw string) *feeds.Query {
	t.Helper()
	q, err := feeds.ParseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// written returns what is written of the objects, which has the size that was announced.
func written(t testing.TB, q *feeds.Query, objects ...*object.Object) []byte {
	t.Helper()
	feed, err := q.Feed(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := stream.To(&out)
	defer w.Release()
	if err := errors.Join(feed.Write(t.Context(), w), w.Close()); err != nil {
		t.Fatal(err)
	}
	if out.Len() != feed.Size() {
		t.Fatalf("%d bytes are written, %d were announced:\n%s", out.Len(), feed.Size(), out.Bytes())
	}
	return out.Bytes()
}

func groups(t testing.TB, body []byte) []group {
	t.Helper()
	var all []group
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		t.Fatalf("%v:\n%s", err, body)
	}
	return all
}

// labels are those that every group of an object in the namespace shop has, with more.
func labels(name string, more ...string) map[string]string {
	all := map[string]string{
		"namespace": "shop", "endpoints": name,
		"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_endpoints_name": name,
		"__meta_kubernetes_endpoint_ready": "true", "__meta_kubernetes_endpoint_port_protocol": "TCP",
	}
	for i := 0; i < len(more); i += 2 {
		all["__meta_kubernetes_endpoint"+more[i]] = more[i+1]
	}
	return all
}

func endpoints(namespace, name string, subsets ...corev1.EndpointSubset) corev1.Endpoints {
	return corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subsets: subsets}
}

func addresses(ips ...string) (all []corev1.EndpointAddress) {
	for _, ip := range ips {
		all = append(all, corev1.EndpointAddress{IP: ip})
	}
	return all
}

func ports(names ...string) (all []corev1.EndpointPort) {
	for i, name := range names {
		all = append(all, corev1.EndpointPort{Name: name, Port: int32(9100 + i), Protocol: corev1.ProtocolTCP})
	}
	return all
}

func TestGroups(t *testing.T) {
	web := endpoints("shop", "web", corev1.EndpointSubset{Addresses: addresses("10.0.0.1", "10.0.0.2"), Ports: ports("metrics", "http")})
	metrics := group{[]string{"10.0.0.1:9100", "10.0.0.2:9100"}, labels("web", "_port_name", "metrics")}
	http := group{[]string{"10.0.0.1:9101", "10.0.0.2:9101"}, labels("web", "_port_name", "http")}

	labelled := endpoints("shop", "db", corev1.EndpointSubset{Addresses: addresses("10.0.0.3"), Ports: ports("")})
	labelled.Labels = map[string]string{"app.kubernetes.io/name": "a \"name\" \\ ü\u2028", "app.kubernetes.io-name": "second", "0": "zero"}
	labelled.Annotations = map[string]string{
		"prometheus.io/path": "/m", "large": strings.Repeat("x", 1025), corev1.LastAppliedConfigAnnotation: "{}",
	}
	own := endpoints("shop", "own", corev1.EndpointSubset{
		Addresses: []corev1.EndpointAddress{
			{IP: "2001:db8::1", Hostname: "one", NodeName: ptr.To("node-a")},
			{IP: "10.0.0.5", TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p"}},
			{IP: "10.0.0.6"}, {IP: "10.0.0.7"},
		},
		NotReadyAddresses: addresses("10.0.0.8"),
		Ports:             []corev1.EndpointPort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}},
	})
	udp := func(more ...string) map[string]string {
		return labels("own", append([]string{"_port_name", "dns", "_port_protocol", "UDP"}, more...)...)
	}
	for _, tc := range []struct {
		name, query string
		objects     []corev1.Endpoints
		want        []group
	}{
		{"nothing", "", nil, []group{}},
		{"no subset", "", []corev1.Endpoints{endpoints("shop", "none")}, []group{}},
		{"no ports", "", []corev1.Endpoints{endpoints("shop", "none", corev1.EndpointSubset{Addresses: addresses("10.0.0.1")})}, []group{}},
		{"no addresses", "", []corev1.Endpoints{endpoints("shop", "none", corev1.EndpointSubset{Ports: ports("a")})}, []group{}},
		{"ports", "", []corev1.Endpoints{web}, []group{metrics, http}},
		{"one port", "port=metrics", []corev1.Endpoints{web}, []group{metrics}},
		{"two ports", "port=http&port=metrics", []corev1.Endpoints{web}, []group{metrics, http}},
		{"another port", "port=metric", []corev1.Endpoints{web}, []group{}},
		{"the port without a name", "port=", []corev1.Endpoints{web, labelled}, []group{{[]string{"10.0.0.3:9100"}, labels(
			"db", "_port_name", "", "s_label_app_kubernetes_io_name", "second", "s_label_0", "zero",
			"s_annotation_prometheus_io_path", "/m")}}},
		{"objects", "port=http", []corev1.Endpoints{web, endpoints("shop", "none"), web}, []group{http, http}},
		{"addresses", "", []corev1.Endpoints{own}, []group{
			{[]string{"[2001:db8::1]:53"}, udp("_hostname", "one", "_node_name", "node-a")},
			{[]string{"10.0.0.5:53"}, udp("_address_target_kind", "Pod", "_address_target_name", "p")},
			{[]string{"10.0.0.6:53", "10.0.0.7:53"}, udp()},
			{[]string{"10.0.0.8:53"}, udp("_ready", "false")},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kind := newType(nil)
			var objects []*object.Object
			for _, e := range tc.objects {
				objects = append(objects, stored(t, kind, 5, e))
			}
			for range 2 { // what is made once is used again
				if diff := cmp.Diff(tc.want, groups(t, written(t, parse(t, tc.query), objects...))); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
		})
	}
}

func TestLabelsAreTextAsItIs(t *testing.T) {
	e := endpoints("shop", "web", corev1.EndpointSubset{Addresses: addresses("10.0.0.1"), Ports: ports("a")})
	const value = "a \"name\" \\ ü\u2028\x00\x01\x02\x03\n<>&"
	e.Annotations = map[string]string{"a": value}
	got := groups(t, written(t, parse(t, ""), stored(t, newType(nil), 5, e)))
	if text := got[0].Labels["__meta_kubernetes_endpoints_annotation_a"]; text != value {
		t.Errorf("got %q, want %q", text, value)
	}
}

// A feed is many times as large as what is kept for it.
func TestLargeFeed(t *testing.T) {
	subset := corev1.EndpointSubset{}
	for i := range 1000 {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), Hostname: fmt.Sprintf("h-%d", i)})
	}
	for i := range 20 {
		subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: fmt.Sprintf("p-%d", i), Port: int32(i + 1)})
	}
	budget := object.NewBudget(1 << 30)
	o := stored(t, newType(budget), 5, endpoints("shop", "web", subset))
	body := written(t, parse(t, ""), o)
	if n := len(groups(t, body)); n != 20_000 {
		t.Errorf("%d groups", n)
	}
	if kept := budget.Bytes(); kept > int64(3*o.Size()) || int64(len(body)) < 20*kept {
		t.Errorf("%d bytes are kept for %d bytes, of an object of %d", kept, len(body), o.Size())
	}
	// What has been forgotten is made again.
	if again := written(t, parse(t, ""), stored(t, newType(object.NewBudget(1)), 5, endpoints("shop", "web", subset))); !bytes.Equal(again, body) {
		t.Error("without what is kept, the feed is another one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := parse(t, "").Feed(ctx, []*object.Object{o}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

// What an object makes of few bytes has a bound, beyond which the others are there without it.
func TestOmitted(t *testing.T) {
	subset := corev1.EndpointSubset{}
	for i := range 2500 {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)})
		subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: fmt.Sprintf("p-%d", i), Port: int32(i + 1)})
	}
	kind := newType(nil)
	large := stored(t, kind, 5, endpoints("shop", "large", subset))
	web := stored(t, kind, 6, endpoints("shop", "web", corev1.EndpointSubset{Addresses: addresses("10.0.0.1"), Ports: ports("a")}))
	feed, err := parse(t, "").Feed(t.Context(), []*object.Object{large, web})
	if err != nil {
		t.Fatal(err)
	}
	if len(feed.Omitted) != 1 || !strings.Contains(feed.Omitted[0], "endpoints shop/large are left out: their 6250000 targets take ") {
		t.Errorf("omitted: %q", feed.Omitted)
	}
	if got := groups(t, written(t, parse(t, ""), large, web)); len(got) != 1 || got[0].Labels["endpoints"] != "web" {
		t.Errorf("got %v", got)
	}
	if got := groups(t, written(t, parse(t, "port=p-7"), large)); len(got) != 1 || len(got[0].Targets) != 2500 {
		t.Errorf("of one port: %d groups", len(got))
	}
}

func TestETag(t *testing.T) {
	kind := newType(nil)
	e := endpoints("shop", "web")
	web, webThen, db := stored(t, kind, 5, e), stored(t, kind, 6, e), stored(t, kind, 5, endpoints("shop", "db"))
	e.CreationTimestamp = metav1.Unix(1, 0)
	restored := stored(t, kind, 5, e)
	known := map[string]string{}
	for name, tag := range map[string]string{
		"one":            parse(t, "").ETag([]*object.Object{web}),
		"later":          parse(t, "").ETag([]*object.Object{webThen}),
		"two":            parse(t, "").ETag([]*object.Object{db, web}),
		"none":           parse(t, "").ETag(nil),
		"a port":         parse(t, "port=a").ETag([]*object.Object{web}),
		"another port":   parse(t, "port=b").ETag([]*object.Object{web}),
		"two ports":      parse(t, "port=a&port=b").ETag([]*object.Object{web}),
		"the empty port": parse(t, "port=").ETag([]*object.Object{web}),
		"another life":   parse(t, "").ETag([]*object.Object{restored}),
	} {
		if other, ok := known[tag]; ok || !regexp.MustCompile(`^W/"[-_\w]{24}"$`).MatchString(tag) {
			t.Errorf("%s: %s, that of %s", name, tag, other)
		}
		known[tag] = name
	}
	if a, b := parse(t, "port=a&port=b").ETag(nil), parse(t, "timeout=5s&port=b&port=a").ETag(nil); a != b {
		t.Errorf("%s and %s for the same", a, b)
	}
}

func TestParseQuery(t *testing.T) {
	q := parse(t, "namespace=shop&labelSelector=a%3Db&fieldSelector=metadata.name%3Dweb&port=a&timeout=1s&pretty=true")
	if want := (metav1.ListOptions{LabelSelector: "a=b", FieldSelector: "metadata.name=web"}); q.List != want {
		t.Errorf("got %+v", q.List)
	}
	for raw, want := range map[string]string{
		"labelselector=a":                 `unknown parameter "labelselector": there are namespace, labelSelector, fieldSelector, port, timeout, pretty`,
		"watch=true":                      `unknown parameter "watch"`,
		"namespace=a&namespace=b":         "the parameter namespace may be given once",
		"labelSelector=a&labelSelector=b": "the parameter labelSelector may be given once",
		"namespace=a;port=b":              "the query cannot be parsed: invalid semicolon separator in query",
		"namespace=a%2Fb":                 "invalid namespace: a lowercase RFC 1123 label",
		"%zz":                             `the query cannot be parsed: invalid URL escape "%zz"`,
	} {
		if _, err := feeds.ParseQuery(raw); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", raw, err, want)
		}
	}
}

var labelNames = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// FuzzFeed holds that whatever an object has, and whatever is asked, the feed is what Prometheus
// reads, of the size that was announced.
func FuzzFeed(f *testing.F) {
	f.Add("shop", "app.kubernetes.io/name", "a\x00b\x03", "10.0.0.1", "metrics", "metrics")
	f.Add("", "", "\xff\"\\", "::1", "", "")
	f.Add("n", "ü", "</script>", "[", "\x02\x03", "\x02")
	f.Fuzz(func(t *testing.T, namespace, key, value, ip, portName, asked string) {
		e := endpoints(namespace, value, corev1.EndpointSubset{
			Addresses:         []corev1.EndpointAddress{{IP: ip}, {IP: value, Hostname: key}, {IP: ip, NodeName: &value}},
			NotReadyAddresses: addresses(ip, value),
			Ports:             append(ports(portName), corev1.EndpointPort{Name: value, Protocol: corev1.Protocol(key)}),
		})
		e.Labels, e.Annotations = map[string]string{key: value, value: key}, map[string]string{key: value}
		q, err := feeds.ParseQuery("port=" + url.QueryEscape(asked))
		if err != nil {
			t.Fatal(err)
		}
		o := stored(t, newType(nil), 5, e)
		for _, q := range []*feeds.Query{q, parse(t, "")} {
			for _, group := range groups(t, written(t, q, o)) {
				for name := range group.Labels {
					if !labelNames.MatchString(name) {
						t.Errorf("the label %q", name)
					}
				}
				if len(group.Targets) == 0 {
					t.Error("a group without targets")
				}
			}
		}
	})
}

// BenchmarkFeed is a poll of 1,000 objects of 10 addresses with two ports.
func BenchmarkFeed(b *testing.B) {
	kind := newType(nil)
	var objects []*object.Object
	for i := range 1000 {
		subset := corev1.EndpointSubset{Ports: ports("http", "metrics")}
		for j := range 10 {
			subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("10.0.0.%d", j)})
		}
		objects = append(objects, stored(b, kind, int64(i+1), endpoints("shop", fmt.Sprintf("web-%04d", i), subset)))
	}
	q := parse(b, "port=metrics")
	b.Run("answer", func(b *testing.B) {
		for b.Loop() {
			written(b, q, objects...)
		}
	})
	b.Run("etag", func(b *testing.B) {
		for b.Loop() {
			q.ETag(objects)
		}
	})
}
