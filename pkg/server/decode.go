package server

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/yamljson"
)

// body is a request's body, read whole. The decoders copy what they keep of it.
type body struct{ buffer *bytes.Buffer }

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooledBody keeps a few large bodies from occupying memory for ever.
const maxPooledBody = 256 << 10

var errBodyTooLarge = apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBodyBytes))

func (b body) bytes() []byte { return b.buffer.Bytes() }

func (b body) release() {
	if b.buffer.Cap() <= maxPooledBody {
		b.buffer.Reset()
		bodies.Put(b.buffer)
	}
}

// readBody reads the body, of which at most maxBodyBytes are taken: a longer one is
// refused before it is read where it tells its length, and else once the limit is passed.
func readBody(c *call) (body, error) {
	if c.req.ContentLength > maxBodyBytes {
		return body{}, errBodyTooLarge
	}
	// A deadline that has passed would cost a connection of HTTP/1, whatever has come on it.
	if err := c.timedOut("before its body was read"); err != nil {
		return body{}, err
	}
	if deadline, ok := c.ctx.Deadline(); ok {
		c.rec.limitReading(deadline)
	}
	b := body{bodies.Get().(*bytes.Buffer)}
	// One byte more than the limit tells a body at the limit from one beyond it.
	n, err := b.buffer.ReadFrom(io.LimitReader(c.rec, maxBodyBytes+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errTimedOut("while its body was being read")
	case err != nil:
		err = apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
	case n > maxBodyBytes:
		err = errBodyTooLarge
	default:
		err = c.timedOut("while its body was being read")
	}
	if err != nil {
		b.release()
		return body{}, err
	}
	return b, nil
}

// jsonDecoder decodes JSON into an empty object, keeps nothing of data, and returns what is
// unknown or repeated in it.
type jsonDecoder func(data []byte, obj runtime.Object) (faults []error, err error)

// decodeAny is the jsonDecoder of whatever is no resource.
func decodeAny(data []byte, obj runtime.Object) (faults []error, err error) {
	return kjson.UnmarshalStrict(data, obj)
}

// decode reads data of the media type into obj. Fields that are unknown or given twice
// are an error under Strict, warnings under Warn (the default), and nothing under Ignore;
// names are case-sensitive. The error is a BadRequest that says what was wrong.
func (c *codecs) decode(data []byte, mediaType string, obj runtime.Object, decodeJSON jsonDecoder, fieldValidation string) (warnings []string, err error) {
	want, err := c.kindOf(obj)
	if err != nil {
		return nil, err
	}
	if mediaType == runtime.ContentTypeProtobuf {
		return nil, c.decodeProtobuf(data, obj, want)
	}
	var faults []error // of strictness
	asJSON := data
	if mediaType == runtime.ContentTypeYAML {
		var duplicates error
		asJSON, duplicates, err = yamljson.Convert(data)
		switch {
		case errors.Is(err, yamljson.ErrTooLarge):
			return nil, apierrors.NewRequestEntityTooLargeError(err.Error())
		case err != nil:
			return nil, unrecognized(want, err, data)
		case duplicates != nil:
			faults = append(faults, duplicates)
		}
	}
	unknown, err := decodeJSON(asJSON, obj)
	if err != nil {
		return nil, c.explain(asJSON, data, want, err)
	}
	faults = append(faults, unknown...)
	got := obj.GetObjectKind().GroupVersionKind()
	if err := c.checkKind(got, want); err != nil {
		return nil, err
	}
	switch {
	case len(faults) == 0, fieldValidation == metav1.FieldValidationIgnore:
		return nil, nil
	case fieldValidation == metav1.FieldValidationStrict:
		return nil, cannotBeHandled(want, want, runtime.NewStrictDecodingError(faults))
	}
	for _, fault := range faults {
		warnings = append(warnings, faultLines(fault)...)
	}
	return warnings, nil
}

// kindOf is the kind that the scheme knows obj's Go type by.
func (c *codecs) kindOf(obj runtime.Object) (schema.GroupVersionKind, error) {
	kinds, _, err := c.scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return kinds[0], nil
}

// checkKind refuses an object that says it is something else. What it leaves out is
// inferred from the path.
func (c *codecs) checkKind(got, want schema.GroupVersionKind) error {
	given := got
	if got.Kind == "" {
		got.Kind = want.Kind
	}
	if given.Group == "" && given.Version == "" {
		got.Group, got.Version = want.Group, want.Version
	}
	switch {
	case got == want || acceptedOptions(got, want):
		return nil
	case !c.scheme.Recognizes(got):
		return cannotBeHandled(got, want, fmt.Errorf("no kind %q is registered for version %q", got.Kind, got.GroupVersion()))
	case got.Kind != want.Kind:
		return cannotBeHandled(got, want, fmt.Errorf("converting (%s.%s) to (core.%s): unknown conversion", got.Version, got.Kind, want.Kind))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion()))
}

// acceptedOptions says whether got is an options kind under another of its names: options
// are known to every group version, and clients send either v1 or meta.k8s.io/v1.
func acceptedOptions(got, want schema.GroupVersionKind) bool {
	return strings.HasSuffix(want.Kind, "Options") && got.Kind == want.Kind && got.Version == "v1" &&
		(got.Group == "" || got.Group == metav1.GroupName)
}

// explain finds the most telling error for JSON that could not be decoded: that it is no
// JSON, that it is another kind of object, or which field has the wrong type.
func (c *codecs) explain(asJSON, original []byte, want schema.GroupVersionKind, cause error) error {
	got, err := json.DefaultMetaFactory.Interpret(asJSON)
	if err != nil {
		return unrecognized(want, err, original)
	}
	if err := c.checkKind(*got, want); err != nil {
		return err
	}
	return cannotBeHandled(want, want, cause)
}

func (c *codecs) decodeProtobuf(data []byte, obj runtime.Object, want schema.GroupVersionKind) error {
	_, got, err := c.protobuf.Decode(data, &want, obj)
	if got != nil {
		if err := c.checkKind(*got, want); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case got != nil:
		return cannotBeHandled(*got, want, err)
	}
	return unrecognized(want, err, data)
}

// cannotBeHandled and unrecognized use kube-apiserver's words.
func cannotBeHandled(got, want schema.GroupVersionKind, cause error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, cause))
}

func unrecognized(want schema.GroupVersionKind, cause error, data []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, cause, summarize(data)))
}

// summarize shows how data begins: as text where it looks like JSON, else in hex.
func summarize(data []byte) string {
	const most = 30
	if len(data) == 0 {
		return "<empty>"
	}
	rest := ""
	show := data
	if len(show) > most {
		show, rest = show[:most], " ..."
	}
	if data[0] == '{' {
		return string(show) + rest
	}
	return hex.EncodeToString(show) + rest
}

// faultLines splits what the YAML decoder reports as one error of several lines.
func faultLines(fault error) []string {
	text, ok := strings.CutPrefix(fault.Error(), "yaml: unmarshal errors:\n")
	if !ok {
		return []string{fault.Error()}
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}
