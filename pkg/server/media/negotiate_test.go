package media_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/stream"
)

const (
	plainJSON = runtime.ContentTypeJSON
	yamlType  = runtime.ContentTypeYAML
	protoType = runtime.ContentTypeProtobuf

	asTable  = ";as=Table;g=meta.k8s.io;v=v1"
	asObject = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	asList   = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

func TestNegotiate(t *testing.T) {
	c := media.New(newScheme(t))
	for _, tc := range []struct {
		accept, agent, query string
		want                 string // media type; "" is NotAcceptable
		pretty, table        bool
	}{
		{accept: "", want: plainJSON},
		{accept: "*/*", want: plainJSON},
		{accept: plainJSON, want: plainJSON},
		{accept: plainJSON + "; charset=utf-8", want: plainJSON},
		{accept: yamlType, want: yamlType},
		{accept: protoType, want: protoType},
		{accept: protoType + "," + plainJSON, want: protoType},
		{accept: "text/html, application/yaml;q=0.9, application/json;q=0.1", want: yamlType},
		{accept: "application/json;q=0.1,application/yaml;q=0.9", want: yamlType},
		{accept: "text/html, */*;q=0.1", want: plainJSON},
		{accept: "application/*", want: ""},
		{accept: "application/*, application/yaml;q=0.1", want: yamlType}, // what is named goes before a wildcard
		{accept: "text/html", want: ""},
		{accept: "application/cbor", want: ""},
		{accept: "application/cbor, application/json", want: plainJSON},
		{accept: ",", want: ""},
		{accept: ";", want: ""},

		{accept: plainJSON + ";as=Nothing;g=meta.k8s.io;v=v1", want: ""},
		{accept: plainJSON + ";as=Nothing;g=meta.k8s.io;v=v1," + plainJSON, want: plainJSON},
		{accept: plainJSON + ";as=Table;g=meta.k8s.io;v=v2," + plainJSON, want: plainJSON},
		{accept: plainJSON + ";as=Table;g=example.io;v=v1," + plainJSON, want: plainJSON},
		{accept: plainJSON + ";as=Table," + plainJSON, want: plainJSON},
		{accept: plainJSON + ";g=meta.k8s.io;v=v1," + plainJSON, want: plainJSON},
		{accept: plainJSON + asTable, want: plainJSON, table: true},
		{accept: strings.Replace(plainJSON+asTable, "v=v1", "v=v1beta1", 1), want: plainJSON, table: true},
		{accept: "*/*" + asTable, want: plainJSON, table: true},
		{accept: yamlType + asTable, want: yamlType, table: true},
		{accept: plainJSON + asTable + "," + plainJSON, want: plainJSON, table: true},
		{accept: plainJSON + asObject, want: plainJSON},
		{accept: protoType + asList + "," + plainJSON, want: protoType},
		{accept: protoType + asTable, want: ""}, // it has no such form
		{accept: protoType + asTable + "," + plainJSON + asTable, want: plainJSON, table: true},
		{accept: protoType + asTable + "," + protoType, want: protoType},

		{accept: plainJSON + ";stream=watch", want: plainJSON},
		{accept: plainJSON + ";stream=other", want: ""},
		{accept: plainJSON + ";stream=other, " + yamlType, want: yamlType},

		{accept: plainJSON + ";pretty=1", want: plainJSON, pretty: true},
		{accept: plainJSON + ";pretty=0", want: plainJSON},
		{query: "pretty=true", want: plainJSON, pretty: true},
		{query: "pretty=1", want: plainJSON, pretty: true},
		{query: "pretty=false", agent: "curl/8.0", want: plainJSON},
		{query: "pretty=maybe", agent: "curl/8.0", want: plainJSON},
		{query: "pretty=", agent: "curl/8.0", want: plainJSON, pretty: true},
		{query: "not=pretty", want: plainJSON},
		{agent: "curl/8.0", want: plainJSON, pretty: true},
		{agent: "Wget/1.2", want: plainJSON, pretty: true},
		{agent: "Mozilla/5.0 (X11)", want: plainJSON, pretty: true},
		{agent: "Mozilla/4.0", want: plainJSON},
		{agent: "kubectl/v1.37.2 curl", want: plainJSON},
		{agent: "curl/8.0", accept: yamlType, want: yamlType},
	} {
		req := negotiation(tc.query, "Accept", tc.accept, "User-Agent", tc.agent)
		out, err := c.Negotiate(req)
		if tc.want == "" {
			if !apierrors.IsNotAcceptable(err) {
				t.Errorf("%+v: got %q, %v, want NotAcceptable", tc, out.MediaType, err)
			}
			out = c.ForError(req)
			tc.want = plainJSON
		} else if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		} else if forError := c.ForError(req); forError.MediaType != tc.want {
			t.Errorf("%+v: an error is answered as %s", tc, forError.MediaType)
		}
		if pretty := isPretty(t, out); out.MediaType != tc.want || pretty != tc.pretty || out.IsTable() != tc.table {
			t.Errorf("%+v: got %q, pretty %v, table %v", tc, out.MediaType, pretty, out.IsTable())
		}
	}
}

// negotiation is a request with that query; headers are pairs of name and value, empty ones
// are left out.
func negotiation(query string, headers ...string) *http.Request {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/?"+query, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	return req
}

// isPretty reports whether JSON is written with indents.
func isPretty(t *testing.T, out media.Output) bool {
	t.Helper()
	var written bytes.Buffer
	if err := out.Any(&written, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}}); err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(written.String(), "{\n")
}

// The texts are kube-apiserver's.
func TestNotAcceptable(t *testing.T) {
	c := media.New(newScheme(t))
	const all = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
	for accept, want := range map[string]string{
		"text/html":                 "406: Not Acceptable\n\nAvailable representations: " + all,
		plainJSON + ";as=Nothing":   "only the following media types are accepted: " + all,
		plainJSON + ";stream=other": "only the following media types are accepted: " + all,
	} {
		if _, err := c.Negotiate(negotiation("", "Accept", accept)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", accept, err, want)
		}
	}
}

// A view that does not fit what is shown is refused before anything is written.
func TestViewsThatDoNotFit(t *testing.T) {
	c := media.New(newScheme(t))
	finished, _ := list(t, 1)
	for accept, write := range map[string]func(media.Output, *stream.Writer) error{
		plainJSON + asList: func(out media.Output, w *stream.Writer) error {
			return out.Object(t.Context(), w, finished.Objects[0], "")
		},
		protoType + asObject: func(out media.Output, w *stream.Writer) error {
			return out.List(t.Context(), w, finished, "")
		},
	} {
		out, err := c.Negotiate(negotiation("", "Accept", accept))
		if err != nil {
			t.Fatal(err)
		}
		w := stream.New(httptest.NewRecorder(), http.StatusOK, false)
		if err := write(out, w); !apierrors.IsNotAcceptable(err) || w.Begun() {
			t.Errorf("%s: got %v, begun %v", accept, err, w.Begun())
		}
		w.Release()
	}
}

func TestEventsMediaType(t *testing.T) {
	c := media.New(newScheme(t))
	for accept, want := range map[string]string{
		plainJSON:                     plainJSON,
		plainJSON + ";stream=watch":   plainJSON,
		plainJSON + asTable:           plainJSON,
		protoType:                     protoType + ";stream=watch",
		protoType + ";stream=watch":   protoType + ";stream=watch",
		protoType + asObject:          protoType + ";stream=watch",
		yamlType:                      "",
		yamlType + "," + plainJSON:    "",
		plainJSON + "," + yamlType:    plainJSON,
		yamlType + ";q=0.1,*/*;q=0.5": plainJSON,
	} {
		out, err := c.Negotiate(negotiation("", "Accept", accept))
		if err != nil {
			t.Fatal(err)
		}
		events, err := c.Events(out, "")
		switch {
		case want == "" && !apierrors.IsNotAcceptable(err):
			t.Errorf("%s: got %v, want NotAcceptable", accept, err)
		case want != "" && (err != nil || events.MediaType != want):
			t.Errorf("%s: got %+v, %v, want %s", accept, events, err, want)
		}
	}
}

func TestNegotiateDocument(t *testing.T) {
	c := media.New(newScheme(t))
	kind := schema.GroupVersionKind{Group: "example.io", Version: "v2", Kind: "Everything"}
	const params = ";g=example.io;v=v2;as=Everything"
	for _, tc := range []struct {
		accept    string
		offered   bool
		want      string // media type; "" is NotAcceptable
		aggregate bool
	}{
		{"", true, plainJSON, false},
		{"*/*", true, plainJSON, false},
		{plainJSON, true, plainJSON, false},
		{yamlType, true, yamlType, false},
		{protoType, true, protoType, false},
		{plainJSON + params, true, plainJSON + params, true},
		{protoType + params, true, protoType + params, true},
		{plainJSON + ";as=Everything;v=v2;g=example.io", true, plainJSON + params, true},
		{plainJSON + params + ";profile=x," + plainJSON, true, plainJSON + params, true},
		{plainJSON + params, false, "", false},
		{plainJSON + params + "," + plainJSON, false, plainJSON, false},
		{plainJSON + strings.Replace(params, "v2", "v1", 1), true, "", false},
		{plainJSON + strings.Replace(params, "v2", "v1", 1) + "," + yamlType, true, yamlType, false},
		{"text/html", true, "", false},
		{"text/html, */*;q=0.1", true, plainJSON, false},
	} {
		offered := kind
		if !tc.offered {
			offered = schema.GroupVersionKind{}
		}
		out, aggregate, err := c.NegotiateDocument(negotiation("", "Accept", tc.accept), offered)
		if tc.want == "" {
			if !apierrors.IsNotAcceptable(err) {
				t.Errorf("%+v: got %q, %v, want NotAcceptable", tc, out.MediaType, err)
			}
			continue
		}
		if err != nil || out.MediaType != tc.want || aggregate != tc.aggregate {
			t.Errorf("%+v: got %q, aggregated %v, %v", tc, out.MediaType, aggregate, err)
		}
	}
}

func TestInput(t *testing.T) {
	c := media.New(newScheme(t))
	for given, want := range map[string]string{
		"":                                  plainJSON,
		plainJSON:                           plainJSON,
		plainJSON + "; charset=utf-8":       plainJSON,
		"APPLICATION/JSON":                  plainJSON,
		yamlType:                            yamlType,
		protoType:                           protoType,
		"text/plain":                        "",
		"application/x-www-form-urlencoded": "",
		"application":                       "",
		plainJSON + "; charset":             "",
		plainJSON + "," + yamlType:          "",
		"application/merge-patch+json":      "",
	} {
		got, err := c.Input(negotiation("", "Content-Type", given))
		if got != want || (want == "") != apierrors.IsUnsupportedMediaType(err) {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"gzip":                    true,
		"deflate, gzip;q=0.5, br": true,
		"GZIP":                    true,
		" gzip ; q=1":             true,
		"gzip; q=0":               false,
		"gzip;q=0.0, br":          false,
		"gzip;q=x":                false,
		"deflate":                 false,
		"xgzip":                   false,
		"identity":                false,
		"":                        false,
	} {
		if got := media.AcceptsGzip(negotiation("", "Accept-Encoding", header)); got != want {
			t.Errorf("%q: got %v, want %v", header, got, want)
		}
	}
}

// Whatever a client accepts, it gets one of the media types, or JSON with an error.
func FuzzNegotiate(f *testing.F) {
	c := media.New(newScheme(f))
	for _, accept := range []string{"*/*", plainJSON + asTable + "," + plainJSON, protoType + asObject, "text/html, application/yaml;q=0.9", ";,;q=", yamlType + ";q=x"} {
		f.Add(accept, "pretty=1", "gzip;q=0.5")
	}
	f.Fuzz(func(t *testing.T, accept, query, encoding string) {
		req := negotiation("", "Accept", accept, "Content-Type", accept, "Accept-Encoding", encoding)
		req.URL.RawQuery = query
		media.AcceptsGzip(req)
		if given, err := c.Input(req); (err == nil) != slices.Contains(c.Types(), given) {
			t.Errorf("Content-Type %q: got %q, %v", accept, given, err)
		}
		out, err := c.Negotiate(req)
		if err != nil {
			if !apierrors.IsNotAcceptable(err) || c.ForError(req).MediaType != plainJSON {
				t.Errorf("%q: got %v", accept, err)
			}
			return
		}
		if !slices.Contains(c.Types(), out.MediaType) || out.IsTable() && out.MediaType == protoType {
			t.Errorf("%q: got %q, table %v", accept, out.MediaType, out.IsTable())
		}
		isPretty(t, out) // which must be able to write
		if document, _, err := c.NegotiateDocument(req, schema.GroupVersionKind{}); err == nil && !slices.Contains(c.Types(), document.MediaType) {
			t.Errorf("%q: a document is %q", accept, document.MediaType)
		}
	})
}

func TestNegotiateMadeJSON(t *testing.T) {
	c := media.New(newScheme(t)).MadeJSON()
	for accept, ok := range map[string]bool{
		"": true, "*/*": true, plainJSON: true, protoType + "," + plainJSON: true, yamlType + ", */*;q=0.1": true, plainJSON + ";pretty=1": true,
		yamlType: false, protoType: false, "text/html": false,
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?pretty=true", nil)
		req.Header.Set("Accept", accept)
		req.Header.Set("User-Agent", "curl/8")
		out, err := c.Negotiate(req)
		if (err == nil) != ok || ok && (out.MediaType != plainJSON || !out.IsMade() || out.Work(10) != 40) {
			t.Errorf("%q: got %q (%v)", accept, out.MediaType, err)
		}
	}
}
