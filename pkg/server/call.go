package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/feeds"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/share"
	"github.com/berth-project/berth/pkg/server/stream"
)

// Resource is what the server consumes of one kind of object. Its errors are API errors
// where the client can do something about them; any other error is an internal one,
// answered with 500, logged, and not shown.
//
// The writing methods take over the object that they are given, and also return warnings
// for the client, with an error, too. A subresource is "" for the object itself, and else
// one of Subresources.
type Resource interface {
	// APIResource describes the resource: group, version, kind, names and scope. Verbs are
	// those that it has, or nil where it has all that the server knows.
	APIResource() metav1.APIResource
	// Subresources describe what is served below an object, such as status; each by the
	// whole name that discovery shows (namespaces/status) and its verbs.
	Subresources() []metav1.APIResource
	// Type is the type of the resource's objects.
	Type() *object.Type

	Get(ctx context.Context, namespace, name string, opts *metav1.GetOptions) (*object.Object, error)
	// Weight returns how many bytes of JSON it is like to write an object, roughly as it is now; 0:
	// there is no such object.
	Weight(namespace, name string) int
	// Effects returns how many bytes of JSON a write of obj, as a client sent it, has the server read
	// or write of other objects, roughly; 0: it has to do with none.
	Effects(namespace string, obj runtime.Object) int
	// List returns the objects of a namespace, or of all namespaces where it is empty, with
	// warnings that name what it had to leave out.
	List(ctx context.Context, namespace string, opts *metav1.ListOptions) (list *object.List, warnings []string, err error)
	// OldVersions returns how many bytes of old versions the list may hold that opts ask for,
	// until its Done; 0: it holds none.
	OldVersions(opts *metav1.ListOptions) int64
	// Watch returns the changes of what List returns, a few at a time as they happen. The
	// sequence must be read; it ends with ctx, or with an error for the client.
	Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (events iter.Seq2[[]object.Event, error], cost object.WatchCost, err error)

	// Default fills in what obj leaves out, as the writing methods do, of which each does it again.
	Default(obj runtime.Object)
	Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (created *object.Object, warnings []string, err error)
	Update(ctx context.Context, namespace, name, subresource string, obj runtime.Object, opts *metav1.UpdateOptions) (updated *object.Object, created bool, warnings []string, err error)
	// Patch returns what applies a patch, and how many bytes of JSON it is like to write to do so,
	// beside those of the patch and the object.
	Patch(namespace, name, subresource string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (apply func(context.Context) (patched *object.Object, created bool, warnings []string, err error), weight int, err error)
	// Delete returns a Status, or the object where it is only marked as deleted.
	Delete(ctx context.Context, namespace, name string, opts *metav1.DeleteOptions) (*object.Object, *metav1.Status, error)
	// DeleteCollection deletes the objects that List has returned, as they were then.
	DeleteCollection(ctx context.Context, opts *metav1.DeleteOptions, listed *object.List) error
}

// Review is a kind that is answered and not stored. Its objects can be created, and nothing else.
type Review interface {
	APIResource() metav1.APIResource
	Type() *object.Type
	Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (created *object.Object, warnings []string, err error)
}

// reviewResource is a review among the resources.
type reviewResource struct {
	Resource // is nil: nothing else is called
	Review
}

func (r reviewResource) APIResource() metav1.APIResource { return r.Review.APIResource() }

func (r reviewResource) Type() *object.Type { return r.Review.Type() }

func (reviewResource) Subresources() []metav1.APIResource { return nil }

func (reviewResource) Weight(string, string) int { return 0 }

func (reviewResource) Effects(string, runtime.Object) int { return 0 }

func (reviewResource) Default(runtime.Object) {}

func (r reviewResource) Create(ctx context.Context, namespace string, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error) {
	return r.Review.Create(ctx, namespace, obj, opts)
}

// call is one call to a resource, with its answer's form settled.
type call struct {
	ctx                          context.Context // ends with the request or its timeout
	rec                          *record
	req                          *http.Request
	resource                     *served
	namespace, name, subresource string
	query                        url.Values
	output                       media.Output
	include                      metav1.IncludeObjectPolicy // what the rows of a table carry
	warnings                     []string                   // for the client, repeated ones once
	weight                       int                        // of the object that is written, as it was when the body was there
	place                        share.Taken                // among the requests in progress, until the answer begins
	inFlight                     *metrics.InFlight          // that counts the request until then; nil: none does
	watching, selecting          share.Taken                // of a watch, and for its selector
	memory, old                  share.Taken                // of the server's other pools, until the answer ends
}

// result is what a handler answers: one of an object, a list, anything else, or events, or nothing
// where the client has it already.
type result struct {
	code   int
	object *object.Object
	list   *object.List
	feed   *feeds.Feed // in whose form the list is; nil: in its own
	etag   string      // of the list; "": it has none
	other  runtime.Object
	events func(*stream.Writer) // writes until the watch ends
}

// size is how many bytes of JSON the objects have that are answered.
func (r *result) size() int {
	if r.object != nil {
		return r.object.Size()
	}
	size := 0
	if r.list != nil {
		for _, o := range r.list.Objects {
			size += o.Size()
		}
	}
	return size
}

// warn adds warnings that the answer will carry.
func (c *call) warn(warnings ...string) { c.warnings = append(c.warnings, warnings...) }

// timedOut returns the error of a call whose context has ended, nil while it has not. when
// continues "its time ended".
func (c *call) timedOut(when string) error {
	if c.ctx.Err() == nil {
		return nil
	}
	return errTimedOut(when)
}

// errTimedOut is a 504 that tells where the time went: etcd is not to blame for what it was
// never asked.
func errTimedOut(when string) error {
	return apierrors.NewTimeoutError("request did not complete within the allotted timeout: its time ended "+when, 1)
}

// serve is the adapter between HTTP and the handlers: it bounds the time, negotiates the form of the answer, and renders what the handler returns. The order of
// the checks is kube-apiserver's.
func (s *Server) serve(rec *record, resource *served, run handler) {
	c, cancel, err := s.newCall(rec, resource)
	if err != nil {
		s.renderError(rec, err)
		return
	}
	rec.counted = true
	defer cancel()
	defer c.end()
	defer func() { rec.timedOut = errors.Is(c.ctx.Err(), context.DeadlineExceeded) }()
	res, err := run(s, c)
	defer res.list.Done()
	c.leave() // who is slow to read the answer keeps nothing from others
	addWarnings(rec.Header(), c.warnings)
	if err != nil {
		s.renderError(rec, err)
		return
	}
	s.render(c, res)
}

func (s *Server) newCall(rec *record, resource *served) (*call, context.CancelFunc, error) {
	vars := mux.Vars(rec.req)
	c := &call{
		rec: rec, req: rec.req, resource: resource,
		namespace: vars["namespace"], name: vars["name"], subresource: rec.attrs.Subresource,
	}
	if c.req.URL.RawQuery != "" {
		c.query = c.req.URL.Query()
		rec.noteDryRun(c.query["dryRun"])
	}
	timeout, err := s.timeout(c)
	if err != nil {
		return nil, nil, err
	}
	codecs := s.codecs
	if resource.codecs != nil {
		codecs = resource.codecs
	}
	negotiate := codecs.Negotiate
	if rec.attrs.Verb == "list" || rec.attrs.Verb == "watch" {
		negotiate = codecs.NegotiateList
	}
	if c.output, err = negotiate(c.req); err != nil {
		return nil, nil, err
	}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(auth.WithUser(c.req.Context(), rec.attrs.User), timeout)
	return c, cancel, nil
}

// timeout is how long the call may take: what the client asks for, within the server's
// bounds.
func (s *Server) timeout(c *call) (time.Duration, error) {
	limit := s.cfg.RequestTimeout
	if !isReadOnly(c.req) {
		limit = min(limit, maxMutationTimeout)
	}
	value := c.query.Get("timeout")
	if value == "" {
		return limit, nil
	}
	asked, err := time.ParseDuration(value)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %s", err))
	}
	if asked > 0 {
		limit = min(limit, asked)
	}
	return limit, nil
}

// tableOptions reads what the rows of a table carry, where the answer is one.
func (c *call) tableOptions() error {
	if !c.output.IsTable() {
		return nil
	}
	opts, err := queryOptions(c.query, metav1.Convert_url_Values_To_v1_TableOptions)
	if err != nil {
		return err
	}
	if faults := validation.ValidateTableOptions(opts); len(faults) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", faults.ToAggregate()))
	}
	c.include = opts.IncludeObject
	return nil
}

// render writes what a handler answered. The header goes out with the first bytes, so that
// an object that cannot be encoded still becomes a proper error.
func (s *Server) render(c *call, res result) {
	rec := c.rec
	if res.events == nil { // a watch has read them before it began
		if err := c.tableOptions(); err != nil {
			s.renderError(rec, err)
			return
		}
		if err := s.beginAnswer(c, res); err != nil {
			s.renderError(rec, err)
			return
		}
	}
	if res.etag != "" {
		rec.Header().Set("ETag", res.etag)
	}
	if res.code == http.StatusNotModified {
		rec.WriteHeader(res.code)
		return
	}
	rec.Header().Set("Content-Type", c.output.MediaType)
	w := stream.New(rec, res.code, media.AcceptsGzip(c.req))
	defer w.Release()
	if res.events != nil {
		res.events(w)
		return
	}
	rec.answer.hold = func() (share.Taken, error) { return s.holdOld(c, res.size()) }
	c.audit(res, s.codecs.Plain(c.output))
	s.finishAnswer(rec, w, c.write(w, c.output, res))
}

// write encodes what a handler answered, within the call's time.
func (c *call) write(w *stream.Writer, out media.Output, res result) (err error) {
	defer func() {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errTimedOut("while the answer was being encoded")
		}
	}()
	switch {
	case res.feed != nil && c.req.Method == http.MethodHead:
		w.Expect(res.feed.Size())
		return nil
	case res.feed != nil:
		return res.feed.Write(c.ctx, w)
	case res.object != nil:
		return out.Object(c.ctx, w, res.object, c.include)
	case res.list != nil:
		return out.List(c.ctx, w, res.list, c.include)
	}
	return out.Any(w, res.other)
}

// audit notes what a handler answered for the audit log, which has all answers as plain JSON, and of
// a feed the list.
func (c *call) audit(res result, plain media.Output) {
	res.feed = nil
	if status, ok := res.other.(*metav1.Status); ok {
		c.rec.audit.Answer(status)
		return
	}
	c.rec.audit.AnswerObject(res.size(), func(to io.Writer) error {
		w := stream.To(to)
		defer w.Release()
		if err := c.write(w, plain, res); err != nil {
			return err
		}
		return w.Close()
	})
}

// finishAnswer ends an answer whose writing returned err. One that is cut off in the middle
// ends the connection or stream: the client must notice.
func (s *Server) finishAnswer(rec *record, w *stream.Writer, err error) {
	if err != nil && !w.Begun() {
		s.renderError(rec, err)
		return
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		if rec.req.Context().Err() == nil && rec.writeErr == nil && !apierrors.IsTimeout(err) {
			rec.cause = err
		}
		panic(http.ErrAbortHandler)
	}
}

// renderAny answers with what is not a resource's object.
func (s *Server) renderAny(rec *record, code int, out media.Output, obj runtime.Object) {
	rec.audit.AnswerObject(0, func(to io.Writer) error { return s.codecs.Plain(out).Any(to, obj) })
	rec.Header().Set("Content-Type", out.MediaType)
	w := stream.New(rec, code, media.AcceptsGzip(rec.req))
	defer w.Release()
	s.finishAnswer(rec, w, out.Any(w, obj))
}
