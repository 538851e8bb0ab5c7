package server

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// mediaTypes are what the server reads and writes, the default first.
var mediaTypes = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

// output is the form of an answer.
type output struct {
	mediaType string
	encoder   runtime.Encoder
	view      view
}

// codecs turn bytes into objects and back.
type codecs struct {
	json, pretty, yaml, proto output
	protobuf                  *protobuf.Serializer
	scheme                    *runtime.Scheme
}

func newCodecs(scheme *runtime.Scheme) *codecs {
	encoder := func(options json.SerializerOptions) runtime.Encoder {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, options)
	}
	proto := protobuf.NewSerializer(scheme, scheme)
	return &codecs{
		json:     output{mediaType: runtime.ContentTypeJSON, encoder: encoder(json.SerializerOptions{})},
		pretty:   output{mediaType: runtime.ContentTypeJSON, encoder: encoder(json.SerializerOptions{Pretty: true})},
		yaml:     output{mediaType: runtime.ContentTypeYAML, encoder: encoder(json.SerializerOptions{Yaml: true})},
		proto:    output{mediaType: runtime.ContentTypeProtobuf, encoder: proto},
		protobuf: proto,
		scheme:   scheme,
	}
}

// negotiate returns the form in which the client wants its answer, or NotAcceptable.
func (c *codecs) negotiate(req *http.Request) (output, error) {
	accept := req.Header.Get("Accept")
	if accept == "" || accept == "*/*" || accept == runtime.ContentTypeJSON {
		return c.jsonFor(req), nil
	}
	if !offersMediaType(accept) {
		return output{}, errNotAcceptable
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		out, ok := c.outputFor(req, clause)
		if !ok {
			continue
		}
		if out.view, ok = viewOf(clause.Params); !ok {
			continue
		}
		if stream := clause.Params["stream"]; stream != "" && stream != "watch" {
			continue
		}
		return out, nil
	}
	return output{}, notAcceptable(strings.Join(mediaTypes, ", "))
}

// outputFor is the form that a clause of Accept names.
func (c *codecs) outputFor(req *http.Request, clause goautoneg.Accept) (output, bool) {
	switch clause.Type + "/" + clause.SubType {
	case runtime.ContentTypeJSON, "application/*", "*/*":
		if clause.Params["pretty"] == "1" {
			return c.pretty, true
		}
		return c.jsonFor(req), true
	case runtime.ContentTypeYAML:
		return c.yaml, true
	case runtime.ContentTypeProtobuf:
		return c.proto, true
	}
	return output{}, false
}

// offersMediaType says whether one of the types is named as it is, or everything is: by
// kube-apiserver's first look at Accept a wildcard like application/* names nothing.
func offersMediaType(accept string) bool {
	for clause := range strings.SplitSeq(accept, ",") {
		mediaType, _, _ := strings.Cut(clause, ";")
		switch strings.TrimSpace(mediaType) {
		case "*/*", runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf:
			return true
		}
	}
	return false
}

// jsonFor is JSON as the client likes it: indented for people, plain for programs.
func (c *codecs) jsonFor(req *http.Request) output {
	if strings.Contains(req.URL.RawQuery, "pretty") {
		if value := req.URL.Query().Get("pretty"); value != "" {
			if pretty, _ := strconv.ParseBool(value); pretty {
				return c.pretty
			}
			return c.json
		}
	}
	agent := req.UserAgent()
	for _, person := range []string{"curl", "Wget", "Mozilla/5.0"} {
		if strings.HasPrefix(agent, person) {
			return c.pretty
		}
	}
	return c.json
}

// errorOutput is the form of an error's answer: what the client accepts, or JSON.
func (c *codecs) errorOutput(req *http.Request) output {
	out, err := c.negotiate(req)
	if err != nil {
		return c.json
	}
	return out
}

// input returns the media type of the request's body, or UnsupportedMediaType. A body
// without a type is JSON.
func (c *codecs) input(req *http.Request) (string, error) {
	given := req.Header.Get("Content-Type")
	if given == "" || given == runtime.ContentTypeJSON {
		return runtime.ContentTypeJSON, nil
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err == nil {
		for _, known := range mediaTypes {
			if mediaType == known {
				return known, nil
			}
		}
	}
	return "", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(mediaTypes, ", "),
	}}
}

// errNotAcceptable is the answer where no clause of Accept names a media type.
var errNotAcceptable = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
	Message: "406: Not Acceptable\n\nAvailable representations: " + strings.Join(mediaTypes, ", "),
	Details: &metav1.StatusDetails{},
}}

// errUnsupportedPatch is the answer to a patch of no known type.
var errUnsupportedPatch = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
	Message: "415: Unsupported Media Type",
	Details: &metav1.StatusDetails{},
}}

// notAcceptable is the answer where Accept wants a view or a stream that is none.
func notAcceptable(available string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + available,
	}}
}
