package media

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/server/stream"
)

func transformedFormats() map[string]transformed {
	plain := newJSON(runtime.NewScheme())
	return map[string]transformed{"pretty": pretty(plain), "YAML": asYAML(plain)}
}

// each yields the elements, over and over in the same bytes, as formats do.
func each(elements [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var room []byte
		for _, element := range elements {
			room = append(room[:0], element...)
			if !yield(room, nil) {
				return
			}
		}
	}
}

// checkDocument wants a document that is written in pieces to be what it is as a whole.
func checkDocument(t *testing.T, list string, head []byte, elements [][]byte) {
	t.Helper()
	empty := append(append(bytes.Clone(head), `,"`+list+`":[`...), "]}"...)
	full := append(append(append(bytes.Clone(head), `,"`+list+`":[`...), bytes.Join(elements, []byte(","))...), "]}"...)
	for name, format := range transformedFormats() {
		var got bytes.Buffer
		w := stream.To(&got)
		if err := format.document(w, empty, list, each(elements)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w.Release()
		want, err := format.to(full)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s of %s:\ngot\n%s\nwant\n%s", name, full, got.Bytes(), want)
		}
	}
}

func TestDocumentsInPieces(t *testing.T) {
	long := `"` + strings.Repeat("a few words, ", 40) + `"`
	elements := [][]byte{
		[]byte(`{}`), []byte(`[]`), []byte(`null`), []byte(long), []byte(`"\nitems: []\n"`), []byte(`"  \"items\": []"`), []byte(`{"items":[],"rows":[]}`),
		[]byte(`{"b":` + long + `,"a":{"c":[` + long + `,{"d":` + long + `,"e":"x\ny\n"}],"f":[[1,[]],[]]}}`),
		[]byte(`{"metadata":{"annotations":{"a":"# \t: - \u0085 \u2028","` + strings.Repeat("x", 130) + `":"1"}}}`),
	}
	for _, list := range []string{"items", "rows"} {
		for n := range len(elements) + 1 {
			checkDocument(t, list, []byte(`{"apiVersion":"v1","kind":"\n`+list+`: []\n","metadata":{"continue":`+long+`,"`+list+`":[]}`), elements[:n])
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"a":"b c"}`), []byte(`"\nitems: []"`), "x")
	f.Add([]byte(`[[],[{}]]`), []byte(`{"a":{"b":"long long long long long long long long long long long long long long long long long"}}`), "\n  \"items\": []")
	f.Fuzz(func(t *testing.T, a, b []byte, text string) {
		a, b = bytes.TrimSpace(a), bytes.TrimSpace(b)
		if _, err := jsonToYAML(a); err != nil || !json.Valid(a) {
			return
		}
		if _, err := jsonToYAML(b); err != nil || !json.Valid(b) {
			return
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		checkDocument(t, "items", []byte(`{"apiVersion":`+string(quoted)+`,"metadata":{"continue":`+string(quoted)+`}`), [][]byte{a, b})
	})
}

// An error among the elements ends a document, as the end of the client's connection does.
func TestDocumentsThatEnd(t *testing.T) {
	endless := func(yield func([]byte, error) bool) {
		for yield([]byte(`"0123456789"`), nil) {
		}
	}
	broken := func(yield func([]byte, error) bool) {
		_ = yield([]byte(`1`), nil) && yield(nil, context.DeadlineExceeded)
	}
	formats := map[string]documentFormat{"JSON": newJSON(runtime.NewScheme())}
	for name, format := range transformedFormats() {
		formats[name] = format
	}
	for name, format := range formats {
		w := stream.To(closedWriter{})
		if err := format.document(w, []byte(`{"a":1,"items":[]}`), "items", endless); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s, nobody reads: %v", name, err)
		}
		w.Release()
		w = stream.To(io.Discard)
		if err := format.document(w, []byte(`{"a":1,"items":[]}`), "items", broken); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, an error: %v", name, err)
		}
		w.Release()
	}
}

type closedWriter struct{}

func (closedWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
