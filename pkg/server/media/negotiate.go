package media

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Negotiate returns the form in which the client wants its answer, or NotAcceptable.
func (c *Codecs) Negotiate(req *http.Request) (Output, error) { return c.negotiate(req, false) }

// NegotiateList is Negotiate for a list, which could also be watched: the error names the forms
// of events, too.
func (c *Codecs) NegotiateList(req *http.Request) (Output, error) { return c.negotiate(req, true) }

func (c *Codecs) negotiate(req *http.Request, watchable bool) (Output, error) {
	accept := req.Header.Get("Accept")
	if accept == "" || accept == "*/*" || accept == runtime.ContentTypeJSON {
		return c.jsonFor(req), nil
	}
	if !c.offersMediaType(accept) {
		available := c.Types()
		if watchable {
			available = append(available, c.streams()...)
		}
		return Output{}, noMediaType(available)
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		out, ok := c.outputFor(req, clause)
		if !ok {
			continue
		}
		if out.view, out.version, ok = viewOf(clause.Params); !ok {
			continue
		}
		if out.IsTable() && !out.of.tables {
			continue
		}
		if stream := clause.Params["stream"]; stream != "" && stream != "watch" {
			continue
		}
		return out, nil
	}
	return Output{}, NotAcceptable(c.Types())
}

// ForError returns the form of an error's answer: what the client accepts, or JSON.
func (c *Codecs) ForError(req *http.Request) Output {
	out, err := c.Negotiate(req)
	if err != nil {
		return outputOf(&c.types[0])
	}
	return out
}

// NegotiateDocument returns the form of a document of discovery, and whether the client
// wants it as the kind aggregated; the zero kind is not offered.
func (c *Codecs) NegotiateDocument(req *http.Request, aggregated schema.GroupVersionKind) (out Output, aggregate bool, err error) {
	accept := req.Header.Get("Accept")
	if accept == "" {
		return c.jsonFor(req), false, nil
	}
	if !c.offersMediaType(accept) {
		return Output{}, false, noMediaType(c.Types())
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		out, ok := c.outputFor(req, clause)
		if !ok {
			continue
		}
		switch (schema.GroupVersionKind{Group: clause.Params["g"], Version: clause.Params["v"], Kind: clause.Params["as"]}) {
		case schema.GroupVersionKind{}:
			return out, false, nil
		case aggregated:
			out.MediaType += ";g=" + aggregated.Group + ";v=" + aggregated.Version + ";as=" + aggregated.Kind
			return out, true, nil
		}
	}
	return Output{}, false, NotAcceptable(c.Types())
}

// outputFor is the form that a clause of Accept names.
func (c *Codecs) outputFor(req *http.Request, clause goautoneg.Accept) (Output, bool) {
	switch name := clause.Type + "/" + clause.SubType; name {
	case c.types[0].name, "application/*", "*/*":
		out := c.jsonFor(req)
		if clause.Params["pretty"] == "1" && c.pretty != nil {
			out.format, out.indented = c.pretty, true
		}
		return out, true
	default:
		known := c.named(name)
		if known == nil {
			return Output{}, false
		}
		return outputOf(known), true
	}
}

func outputOf(of *mediaType) Output { return Output{MediaType: of.name, of: of, format: of.format} }

// Plain returns the form that shows the same as o in plain JSON.
func (c *Codecs) Plain(o Output) Output {
	plain := outputOf(&c.types[0])
	plain.view, plain.version = o.view, o.version
	return plain
}

// offersMediaType reports whether one of the types is named as it is, or everything is: by
// kube-apiserver's first look at Accept a wildcard like application/* names nothing.
func (c *Codecs) offersMediaType(accept string) bool {
	for clause := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(clause, ";")
		if name = strings.TrimSpace(name); name == "*/*" || c.named(name) != nil {
			return true
		}
	}
	return false
}

// jsonFor is JSON as the client likes it: indented for people, plain for programs.
func (c *Codecs) jsonFor(req *http.Request) Output {
	out := outputOf(&c.types[0])
	if c.pretty != nil && prefersIndented(req) {
		out.format, out.indented = c.pretty, true
	}
	return out
}

func prefersIndented(req *http.Request) bool {
	if strings.Contains(req.URL.RawQuery, "pretty") {
		if value := req.URL.Query().Get("pretty"); value != "" {
			pretty, _ := strconv.ParseBool(value)
			return pretty
		}
	}
	agent := req.UserAgent()
	for _, person := range []string{"curl", "Wget", "Mozilla/5.0"} {
		if strings.HasPrefix(agent, person) {
			return true
		}
	}
	return false
}

// Input returns the media type of a request's body, or UnsupportedMediaType. A body
// without a type is JSON.
func (c *Codecs) Input(req *http.Request) (string, error) {
	given := req.Header.Get("Content-Type")
	if given == "" || given == runtime.ContentTypeJSON {
		return runtime.ContentTypeJSON, nil
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err == nil && c.named(mediaType) != nil {
		return mediaType, nil
	}
	return "", Unsupported(c.Types(), FormHint(req))
}

// Unsupported is the answer to a body of another media type than those that are accepted. hint is
// added to its words.
func Unsupported(accepted []string, hint string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", ") + hint,
	}}
}

// FormHint says what is wrong with a body that has the media type of HTML forms, which is nearly
// always what curl sends unasked; "" for every other one.
func FormHint(req *http.Request) string {
	const form = "application/x-www-form-urlencoded"
	switch mediaType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")); {
	case mediaType != form:
		return ""
	case req.ContentLength == 0:
		return "; this body is empty, and its type " + form + ", as curl sends it with -d"
	}
	return "; this one is " + form + ", as curl sends it with -d: name its type with -H 'Content-Type: …'"
}

// AcceptsGzip reports whether the client takes a compressed answer.
func AcceptsGzip(req *http.Request) bool {
	for clause := range strings.SplitSeq(req.Header.Get("Accept-Encoding"), ",") {
		coding, params, _ := strings.Cut(clause, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		value, ok := strings.CutPrefix(strings.TrimSpace(params), "q=")
		if !ok {
			return true
		}
		quality, err := strconv.ParseFloat(value, 64)
		return err == nil && quality > 0
	}
	return false
}

// noMediaType is the answer where no clause of Accept names a media type.
func noMediaType(available []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "406: Not Acceptable\n\nAvailable representations: " + strings.Join(available, ", "),
		Details: &metav1.StatusDetails{},
	}}
}

// NotAcceptable is the answer where Accept asks for a form that does not exist.
func NotAcceptable(available []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join(available, ", "),
	}}
}
