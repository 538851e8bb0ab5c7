package api

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// documented is the body of the documented call.
const documented = `{
  "apiVersion": "v1",
  "kind": "Endpoints",
  "metadata": {"name": "test-endpoint", "namespace": "%s"},
  "subsets": [{
    "addresses": [{"ip": "192.168.226.222", "targetRef": {
      "kind": "Pod", "name": "nginx-686bccd6f-ccsqb", "namespace": "test-namespace",
      "resourceVersion": "262055491", "uid": "ae417968-4f69-40da-9228-2434671e9c66"}}],
    "ports": [{"name": "service0", "port": 80, "protocol": "TCP"}]
  }]
}`

func TestDocumentedCall(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		sent := []byte(fmt.Sprintf(documented, ns))
		a := send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), sent, "Content-Type", "application/json"))
		checkCode(t, a, http.StatusCreated, "")
		created := decode[*corev1.Endpoints](t, a)
		if created.UID == "" || created.ResourceVersion == "" || created.CreationTimestamp.IsZero() || created.SelfLink != endpointsPath(ns, "test-endpoint") {
			t.Errorf("metadata %v", created.ObjectMeta)
		}
		want := &corev1.Endpoints{}
		if _, _, err := serializerOf(t, runtime.ContentTypeJSON).Decode(sent, nil, want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Subsets, created.Subsets); diff != "" {
			t.Errorf("subsets (-sent +created):\n%s", diff)
		}
		if a.header.Get("Audit-Id") == "" || a.header.Get("Cache-Control") != "no-cache, private" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", a.header)
		}
		got := send(t, client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, "test-endpoint"), nil))
		if got.code != http.StatusOK || !bytes.Equal(got.body, a.body) {
			t.Errorf("read back %d %s, created as %s", got.code, got.body, a.body)
		}
	})
}

// 64 clients create one name at once, a hundred times over.
func TestOneNameAtOnce(t *testing.T) {
	const clients, rounds = 64, 50 // with each protocol
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		for round := range rounds {
			name := fmt.Sprintf("e-%d", round)
			var mu sync.Mutex
			codes, winner := map[int]int{}, []byte(nil)
			start := make(chan struct{})
			var all sync.WaitGroup
			for range clients {
				req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body(name))
				all.Go(func() {
					<-start
					a, err := try(client, req)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
						return
					}
					if codes[a.code]++; a.code == http.StatusCreated {
						winner = a.body
					}
				})
			}
			close(start)
			all.Wait()
			if codes[http.StatusCreated] != 1 || codes[http.StatusConflict] != clients-1 {
				t.Fatalf("round %d: %v, want one 201 and %d times 409", round, codes, clients-1)
			}
			got := send(t, client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, name), nil))
			if !bytes.Equal(got.body, winner) {
				t.Fatalf("round %d: stored is %s, created was %s", round, got.body, winner)
			}
		}
	})
}

// Bodies of every media type give equal objects, and answers of every media type, too.
func TestMediaTypes(t *testing.T) {
	ns := newNamespace(t, shared)
	hostname := "web-0"
	obj := &corev1.Endpoints{
		TypeMeta: metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"note": "<b>&\"}{\\\u2028é\n yes: no"},
		},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1", Hostname: hostname}, {IP: "2001:db8::1"}},
			Ports:     []corev1.EndpointPort{{Name: "y", Port: 80}, {Name: "n", Port: 53, Protocol: corev1.ProtocolUDP}},
		}},
	}
	var first *corev1.Endpoints
	for i, in := range mediaTypes {
		for j, out := range mediaTypes {
			t.Run(in+" to "+out, func(t *testing.T) {
				obj.Name = fmt.Sprintf("e-%d-%d", i, j)
				a := send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), encode(t, in, obj), "Content-Type", in, "Accept", out))
				checkCode(t, a, http.StatusCreated, "")
				if got := a.header.Get("Content-Type"); got != out {
					t.Errorf("answered as %q", got)
				}
				created := decode[*corev1.Endpoints](t, a)
				read := decode[*corev1.Endpoints](t, send(t, shared.Client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, obj.Name), nil, "Accept", out)))
				if diff := cmp.Diff(created, read); diff != "" {
					t.Errorf("read back (-created +read):\n%s", diff)
				}
				if first == nil {
					first = created
					return
				}
				same := created.DeepCopy()
				same.ObjectMeta = first.ObjectMeta
				if diff := cmp.Diff(first, same); diff != "" || !cmp.Equal(first.Annotations, created.Annotations) || !cmp.Equal(first.Labels, created.Labels) {
					t.Errorf("it differs from the first:\n%s", diff)
				}
			})
		}
	}
	var lists []*corev1.EndpointsList
	for _, out := range mediaTypes {
		lists = append(lists, decode[*corev1.EndpointsList](t, send(t, shared.Client, newRequest(t, shared, http.MethodGet, endpointsPath(ns, ""), nil, "Accept", out))))
	}
	for _, list := range lists[1:] {
		list.ResourceVersion = lists[0].ResourceVersion
		if diff := cmp.Diff(lists[0], list); diff != "" || len(list.Items) != len(mediaTypes)*len(mediaTypes) {
			t.Errorf("%d items listed, differing by\n%s", len(list.Items), diff)
		}
	}
}

func TestPretty(t *testing.T) {
	ns := newNamespace(t, shared)
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("a"))), http.StatusCreated, "")
	for _, tc := range []struct {
		path, agent string
		pretty      bool
	}{
		{endpointsPath(ns, "a"), "api-test/1", false},
		{endpointsPath(ns, "a") + "?pretty=true", "api-test/1", true},
		{endpointsPath(ns, "a"), "curl/8.5.0", true},
		{endpointsPath(ns, "a") + "?pretty=false", "curl/8.5.0", false},
		{endpointsPath(ns, ""), "Wget/1.21", true},
		{endpointsPath(ns, ""), "api-test/1", false},
		{endpointsPath(ns, "missing"), "Mozilla/5.0 (X11)", true},
		{endpointsPath(ns, "missing"), "api-test/1", false},
	} {
		a := send(t, shared.Client, newRequest(t, shared, http.MethodGet, tc.path, nil, "User-Agent", tc.agent))
		if pretty := strings.Contains(string(a.body), "\n  \"kind\": "); pretty != tc.pretty || !bytes.HasSuffix(a.body, []byte("}\n")) && !tc.pretty {
			t.Errorf("%s by %s: %s", tc.path, tc.agent, a.body)
		}
	}
}

func TestWarnings(t *testing.T) {
	ns := newNamespace(t, shared)
	post := func(query, text string) *answer {
		return send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+query, []byte(text)))
	}
	a := post("", `{"metadata":{"name":"a","name":"a","bogus":1},"bogus":1,"bo\u000agus":1}`)
	checkCode(t, a, http.StatusCreated, "")
	want := []string{`299 - "duplicate field \"metadata.name\""`, `299 - "unknown field \"metadata.bogus\""`, `299 - "unknown field \"bogus\""`}
	got := a.header.Values("Warning")
	if len(got) != 4 || !cmp.Equal(got[:3], want) || strings.ContainsAny(got[3], "\r\n") {
		t.Errorf("got %q, want %q and a clean fourth", got, want)
	}
	if a = post("?fieldValidation=Ignore", `{"metadata":{"name":"b","bogus":1}}`); a.code != http.StatusCreated || len(a.header.Values("Warning")) > 0 {
		t.Errorf("ignoring: %d, %q", a.code, a.header.Values("Warning"))
	}
	var many strings.Builder
	many.WriteString(`{"metadata":{"name":"c"},"subsets":[`)
	for i := range 200 {
		if i > 0 {
			many.WriteByte(',')
		}
		fmt.Fprintf(&many, `{"addresses":[{"ip":"10.0.0.1","%s%d":1,"same":1,"same":2}]}`, strings.Repeat("x", 300), i)
	}
	many.WriteString(`]}`)
	a = post("", many.String())
	checkCode(t, a, http.StatusCreated, "")
	seen, total := map[string]bool{}, 0
	for _, warning := range a.header.Values("Warning") {
		if seen[warning] {
			t.Errorf("repeated: %s", warning)
		}
		seen[warning] = true
		total += len(warning)
		if len(warning) > 300 {
			t.Errorf("a warning of %d bytes", len(warning))
		}
	}
	if len(seen) < 5 || total > 6<<10 {
		t.Errorf("%d warnings of %d bytes", len(seen), total)
	}
	a = post("?fieldValidation=Strict", `{"metadata":{"name":"d","bogus":1}}`)
	checkCode(t, a, http.StatusBadRequest, `strict decoding error: unknown field \"metadata.bogus\"`)
}
