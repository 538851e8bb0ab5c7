package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// minWatchTime is the shortest life of a watch whose client names none; each lives up to
// twice as long, at random, so that they do not all come back at once.
const minWatchTime = 30 * time.Minute

// isWatch says whether the query makes a watch of a list.
func isWatch(req *http.Request) bool {
	if req.Method != http.MethodGet || !strings.Contains(req.URL.RawQuery, "watch") {
		return false
	}
	opts := &metav1.ListOptions{}
	query := req.URL.Query()
	return metav1.Convert_url_Values_To_v1_ListOptions(&query, opts, nil) == nil && opts.Watch
}

// watch streams the changes of a collection until the time is up, the client goes, or the
// server ends its streams.
func (s *Server) watch(c *call) (result, error) {
	opts, err := listOptions(c)
	if err != nil {
		return result{}, err
	}
	format, err := s.codecs.watchFormat(c)
	if err != nil {
		return result{}, err
	}
	life := minWatchTime + rand.N(minWatchTime)
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		life = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(s.streams, life)
	defer context.AfterFunc(c.req.Context(), cancel)() // which ends with the handler
	if c.name != "" {
		opts.FieldSelector = "metadata.name=" + c.name
	}
	detached := false
	defer func() {
		if !detached {
			cancel()
		}
	}()
	events, err := c.resource.Watch(ctx, c.namespace, opts)
	if err != nil {
		return result{}, err
	}
	rec, j := c.rec, newJSONStream(c.rec, http.StatusOK, c.rec.acceptsGzip())
	rec.watch, j.contentType = true, format.contentType
	answer := func() { s.stream(rec, j, format, events) }
	if detached = s.detach(rec, cancel, answer); !detached {
		answer()
	}
	return result{}, errAnswered
}

// stream writes the events as they come, and flushes when there are no more for now.
func (s *Server) stream(rec *record, j *jsonStream, format *watchFormat, events iter.Seq2[[]watch.Event, error]) {
	defer j.release()
	_ = j.flush() // the events must be read even if the client has gone: that ends them
	for batch, err := range events {
		if err != nil {
			status := s.statusOf(rec, err)
			batch = []watch.Event{{Type: watch.Error, Object: status}}
		}
		var failed error
		for _, event := range batch {
			if failed = format.write(j, event); failed != nil {
				break
			}
		}
		if failed != nil && j.err == nil { // no fault of the client's or of the connection
			_ = format.write(j, watch.Event{Type: watch.Error, Object: s.statusOf(rec, failed)})
			break
		}
		s.metrics.watched(rec, len(batch))
		if err := j.flush(); err != nil {
			return
		}
	}
	rec.timeoutSet = time.Time{}
	rec.startTimeout(time.Now()) // which may be over since the last event
	_ = j.end()                  // whoever is not there any more misses nothing
}

// watchFormat is how one watch writes its events.
type watchFormat struct {
	contentType string
	output      output
	resource    Resource
	include     metav1.IncludeObjectPolicy
	tables      int // how many tables have been written
}

// watchFormat negotiates the form of a watch. YAML cannot be streamed.
func (c *codecs) watchFormat(call *call) (*watchFormat, error) {
	out := call.output
	format := &watchFormat{contentType: out.mediaType, output: out, resource: call.resource}
	switch out.mediaType {
	case runtime.ContentTypeYAML:
		return nil, notAcceptable("application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
	case runtime.ContentTypeProtobuf:
		format.contentType += ";stream=watch"
	default:
		format.output.encoder = c.json.encoder // a line per event, whoever asks
	}
	var err error
	if out.view == viewTable {
		format.include, err = includeObject(call)
	}
	return format, err
}

// write writes one event. Objects as plain JSON go out as they are; every other form is
// encoded once and shared by all who want it.
func (f *watchFormat) write(j *jsonStream, event watch.Event) error {
	if f.output.mediaType == runtime.ContentTypeJSON && (f.output.view == viewObject || event.Type == watch.Error) {
		if obj, ok := event.Object.(finished); ok {
			return writeEvent(j, event.Type, obj)
		}
		return f.writeJSON(j, event.Type, event.Object)
	}
	cached, ok := event.Object.(runtime.CacheableObject)
	if !ok {
		return f.writeFrame(j, event.Type, event.Object)
	}
	id := "watch/" + f.output.mediaType + "/" + string(f.output.view) + "/" + string(event.Type)
	if f.output.view == viewTable {
		id += "/" + string(f.include)
		if f.tables == 0 {
			id += "/columns"
		}
		defer func() { f.tables++ }()
	}
	encode := func(obj runtime.Object, w io.Writer) error { return f.writeFrame(w, event.Type, obj) }
	if !j.gzip {
		return cached.CacheEncode(runtime.Identifier(id), encode, j)
	}
	return cached.CacheEncode(runtime.Identifier("gzip/"+id), func(obj runtime.Object, w io.Writer) error {
		var frame bytes.Buffer
		if err := encode(obj, &frame); err != nil {
			return err
		}
		_, err := w.Write(newBlock(frame.Bytes()))
		return err
	}, blockWriter{j})
}

// blockWriter writes what newBlock has returned, whole, into a gzip stream.
type blockWriter struct{ j *jsonStream }

func (b blockWriter) Write(p []byte) (int, error) {
	b.j.block(p)
	return len(p), b.j.err
}

// writeEvent writes a finished object's event as one line of JSON.
func writeEvent(j *jsonStream, eventType watch.EventType, obj finished) error {
	head, rest, err := obj.Finished()
	if err != nil {
		return err
	}
	j.line = append(j.line[:0], `{"type":"`...)
	j.line = append(j.line, eventType...)
	j.line = append(j.line, `","object":`...)
	j.line = append(j.line, head...)
	j.raw(j.line)
	j.finished(obj, rest)
	j.raw([]byte("}\n"))
	return j.err
}

func (f *watchFormat) writeFrame(w io.Writer, eventType watch.EventType, obj runtime.Object) error {
	obj, err := f.convert(eventType, obj)
	if err != nil {
		return err
	}
	if f.output.mediaType == runtime.ContentTypeJSON {
		return f.writeJSON(w, eventType, obj)
	}
	var encoded bytes.Buffer
	if err := f.output.encoder.Encode(obj, &encoded); err != nil {
		return err
	}
	event := metav1.WatchEvent{Type: string(eventType), Object: runtime.RawExtension{Raw: encoded.Bytes()}}
	data, err := event.Marshal()
	if err != nil {
		return err
	}
	// A frame is its length in four bytes, big-endian, and its content.
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(data)))
	if _, err := w.Write(length[:]); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// convert turns an event's object into the view of the watch.
func (f *watchFormat) convert(eventType watch.EventType, obj runtime.Object) (runtime.Object, error) {
	if eventType == watch.Error || f.output.view == viewObject {
		return obj, nil
	}
	if cached, ok := obj.(runtime.CacheableObject); ok {
		obj = cached.GetObject()
	}
	if f.output.view == viewTable {
		return table(f.resource, obj, f.include, f.tables == 0)
	}
	return metadataOf(obj)
}

// writeJSON writes an event as one line.
func (f *watchFormat) writeJSON(w io.Writer, eventType watch.EventType, obj runtime.Object) error {
	if _, err := io.WriteString(w, `{"type":"`+string(eventType)+`","object":`); err != nil {
		return err
	}
	if err := f.output.encoder.Encode(obj, withoutNewline{w}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "}\n")
	return err
}

// withoutNewline leaves out the newline that JSON encoders end an object with.
type withoutNewline struct{ w io.Writer }

func (t withoutNewline) Write(p []byte) (int, error) {
	if trimmed := bytes.TrimSuffix(p, []byte("\n")); len(trimmed) > 0 {
		if n, err := t.w.Write(trimmed); err != nil {
			return n, err
		}
	}
	return len(p), nil
}
