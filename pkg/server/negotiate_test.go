package server

import (
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestNegotiate(t *testing.T) {
	c := newCodecs(testScheme(t))
	for _, tc := range []struct {
		accept, agent, query string
		want                 string // media type; "" is NotAcceptable
		pretty               bool
	}{
		{accept: "", want: "application/json"},
		{accept: "*/*", want: "application/json"},
		{accept: "application/json", want: "application/json"},
		{accept: "application/yaml", want: "application/yaml"},
		{accept: "application/vnd.kubernetes.protobuf", want: "application/vnd.kubernetes.protobuf"},
		{accept: "application/vnd.kubernetes.protobuf,application/json", want: "application/vnd.kubernetes.protobuf"},
		{accept: "text/html, application/yaml;q=0.9, application/json;q=0.1", want: "application/yaml"},
		{accept: "application/json;q=0.1,application/yaml;q=0.9", want: "application/yaml"},
		{accept: "application/*", want: ""},
		{accept: "text/html", want: ""},
		{accept: "application/cbor", want: ""},
		{accept: ",", want: ""},
		{accept: "application/json;as=Nothing;g=meta.k8s.io;v=v1", want: ""},
		{accept: "application/json;as=Nothing;g=meta.k8s.io;v=v1,application/json", want: "application/json"},
		{accept: "application/json;pretty=1", want: "application/json", pretty: true},
		{query: "pretty=true", want: "application/json", pretty: true},
		{query: "pretty=1", want: "application/json", pretty: true},
		{query: "pretty=false", agent: "curl/8.0", want: "application/json"},
		{query: "pretty=maybe", agent: "curl/8.0", want: "application/json"},
		{query: "pretty=", agent: "curl/8.0", want: "application/json", pretty: true},
		{agent: "curl/8.0", want: "application/json", pretty: true},
		{agent: "Wget/1.2", want: "application/json", pretty: true},
		{agent: "Mozilla/5.0 (X11)", want: "application/json", pretty: true},
		{agent: "Mozilla/4.0", want: "application/json"},
		{agent: "kubectl/v1.37.2 curl", want: "application/json"},
		{agent: "curl/8.0", accept: "application/yaml", want: "application/yaml"},
	} {
		req := newRequest(t, http.MethodGet, testPath+"?"+tc.query, "", "Accept", tc.accept, "User-Agent", tc.agent)
		if tc.accept == "" {
			req.Header.Del("Accept")
		}
		out, err := c.negotiate(req)
		if tc.want == "" {
			if !apierrors.IsNotAcceptable(err) {
				t.Errorf("%+v: got %q, %v, want NotAcceptable", tc, out.mediaType, err)
			}
			if out := c.errorOutput(req); out.mediaType != runtime.ContentTypeJSON {
				t.Errorf("%+v: the error is answered as %s", tc, out.mediaType)
			}
			continue
		}
		if err != nil || out.mediaType != tc.want || (out.encoder == c.pretty.encoder) != tc.pretty {
			t.Errorf("%+v: got %q, pretty %v, %v", tc, out.mediaType, out.encoder == c.pretty.encoder, err)
		}
	}
}

func TestInput(t *testing.T) {
	c := newCodecs(testScheme(t))
	for given, want := range map[string]string{
		"":                                    "application/json",
		"application/json":                    "application/json",
		"application/json; charset=utf-8":     "application/json",
		"APPLICATION/JSON":                    "application/json",
		"application/yaml":                    "application/yaml",
		"application/vnd.kubernetes.protobuf": "application/vnd.kubernetes.protobuf",
		"text/plain":                          "",
		"application/x-www-form-urlencoded":   "",
		"application":                         "",
		"application/json; charset":           "",
	} {
		got, err := c.input(newRequest(t, http.MethodPost, testPath, "", "Content-Type", given))
		if got != want || (want == "") != apierrors.IsUnsupportedMediaType(err) {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
	}
}
