package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Entry is what is recorded of one request, which it must not outlive. Of nil nothing is: all
// its methods can be called, and do nothing. They must not be called at the same time.
type Entry struct {
	log      *Log
	decision decision
	event    event
	isWatch  bool
	started  bool  // whether the line of the answer's beginning was written
	held     int64 // bytes of objects that the log lets the entry hold
}

// Begin returns the entry of a request, nil where the policy records nothing of it, and writes
// the line of its reception. a.User is the user who has authenticated, and not one who is
// impersonated; it is nil if authentication has failed. End must be called.
func (l *Log) Begin(req *http.Request, auditID string, received time.Time, a *auth.Attributes) *Entry {
	if l == nil {
		return nil
	}
	decision := l.policy.Load().decide(a)
	l.metrics.levels[decision.level].Inc()
	if decision.level == None {
		return nil
	}
	e := &Entry{log: l, decision: decision, isWatch: a.ResourceRequest && a.Verb == "watch", event: event{
		level: decision.level, auditID: auditID, uri: req.RequestURI, verb: a.Verb,
		sourceIPs: sourceIPsOf(req), userAgent: userAgentOf(req), ref: referenceOf(a), received: received,
	}}
	if a.User == nil {
		e.started = true // see End
		return e
	}
	e.event.user = a.User
	e.record(auditv1.StageRequestReceived, received)
	return e
}

// maxReason bounds what is recorded of an authorizer's reason and of a panic, in bytes.
const maxReason = 4 << 10

// Impersonate notes that the request acts as another user. constraint is the verb of constrained
// impersonation that has allowed it, or "".
func (e *Entry) Impersonate(user *auth.User, constraint string) {
	if e != nil {
		e.event.impersonated, e.event.constraint = user, constraint
	}
}

// Authorize notes what an authorizer has decided. The first decision counts.
func (e *Entry) Authorize(allowed bool, reason string, err error) {
	if e == nil || e.event.decided {
		return
	}
	e.event.decided, e.event.reason = true, reason[:min(len(reason), maxReason)]
	switch {
	case err != nil:
		e.event.reason = "internal error" // and no decision, as kube-apiserver has it
	case allowed:
		e.event.decision = "allow"
	default:
		e.event.decision = "forbid"
	}
}

// WantsRequest reports whether the object or patch that was sent is recorded.
func (e *Entry) WantsRequest() bool { return e != nil && e.decision.level >= Request }

// WantsResponse reports whether the object that is answered is recorded.
func (e *Entry) WantsResponse() bool { return e != nil && e.decision.level >= RequestResponse }

// Sent notes the object that a body was decoded to, before anything but defaults has changed it:
// its name and version, and if WantsRequest the object itself, of which kind is the kind.
func (e *Entry) Sent(obj runtime.Object, kind schema.GroupVersionKind) {
	if e == nil {
		return
	}
	if accessor, err := meta.Accessor(obj); err == nil && e.event.ref != nil {
		ref := e.event.ref
		complete(&ref.Namespace, accessor.GetNamespace())
		complete(&ref.Name, accessor.GetName())
		complete(&ref.UID, accessor.GetUID())
		complete(&ref.ResourceVersion, accessor.GetResourceVersion())
	}
	if !e.WantsRequest() {
		return
	}
	before := obj.GetObjectKind().GroupVersionKind()
	obj.GetObjectKind().SetGroupVersionKind(kind)
	defer obj.GetObjectKind().SetGroupVersionKind(before)
	e.event.requestObject = e.keep(e.hidden(), func(w io.Writer) error { return json.NewEncoder(w).Encode(obj) })
}

func complete[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

// SentPatch notes a patch, which is JSON or else YAML, if WantsRequest. Managed fields stay in it.
func (e *Entry) SentPatch(patch []byte, isYAML bool) {
	if !e.WantsRequest() {
		return
	}
	e.event.requestObject = e.keep(nil, func(w io.Writer) (err error) {
		if isYAML {
			if patch, _, err = yamljson.Convert(patch); err != nil {
				return err
			}
		}
		_, err = w.Write(patch)
		return err
	})
}

// Answer notes the Status with which the request is answered.
func (e *Entry) Answer(status *metav1.Status) {
	if e == nil {
		return
	}
	copied := *status
	if e.isTokenReview() && (status.Code == http.StatusBadRequest || status.Code == http.StatusUnprocessableEntity) {
		copied.Message, copied.Details = "the message is left out of the audit log, since it may quote the token", nil
	}
	e.event.status = &copied
	if e.WantsResponse() {
		copied := copied
		copied.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		e.AnswerObject(0, func(w io.Writer) error { return json.NewEncoder(w).Encode(&copied) })
	}
}

// AnswerObject notes the object that is answered, if WantsResponse. write writes its JSON, which is
// no smaller than size, and may be cut short.
func (e *Entry) AnswerObject(size int, write func(io.Writer) error) {
	switch {
	case !e.WantsResponse():
	case size > e.log.cfg.MaxEventBytes:
		e.event.truncated = true
	default:
		e.event.responseObject = e.keep(e.hidden(), write)
	}
}

// isTokenReview reports whether bodies and messages about them may have a token.
func (e *Entry) isTokenReview() bool {
	ref := e.event.ref
	return ref != nil && ref.APIGroup == "authentication.k8s.io" && ref.Resource == "tokenreviews"
}

var (
	managedFields = []string{"metadata.managedFields", "items.*.metadata.managedFields", "rows.*.object.metadata.managedFields"}
	// tokens are where a TokenReview has its token: annotations may repeat the object.
	tokens = []string{"spec.token", "metadata.annotations"}
)

// hidden are the members of objects that are left out.
func (e *Entry) hidden() (paths []string) {
	if e.decision.omitManagedFields {
		paths = slices.Clone(managedFields)
	}
	if e.isTokenReview() {
		paths = append(paths, tokens...)
	}
	return paths
}

// errTooLarge ends the writing of an object for which there is no room.
var errTooLarge = errors.New("the object is too large for the audit log")

// keep returns JSON without the members at the paths, as one line. It is nil, and the event is
// marked as truncated, where it is larger than an event may be or the log's memory is in use,
// and nil for what is no JSON.
func (e *Entry) keep(paths []string, write func(io.Writer) error) []byte {
	var buffer bytes.Buffer
	err := write(writerFunc(func(p []byte) (int, error) {
		if buffer.Len()+len(p) > e.log.cfg.MaxEventBytes || !e.log.hold(e, int64(len(p))) {
			return 0, errTooLarge
		}
		return buffer.Write(p)
	}))
	if errors.Is(err, errTooLarge) {
		e.event.truncated = true
		return nil
	}
	if err != nil {
		return nil // the client is told
	}
	line, err := rewrite(buffer.Bytes(), paths)
	if err != nil {
		return nil
	}
	return line
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Start writes the line of an answer that begins and lasts, of a watch.
func (e *Entry) Start(code int) {
	if e == nil || e.started {
		return
	}
	e.started, e.event.code = true, code
	e.record(auditv1.StageResponseStarted, time.Now())
}

// End writes the line of a request that has been answered with the code; 0: it was not. If
// authentication has failed it is that of the answer's beginning, which is what kube-apiserver
// records.
func (e *Entry) End(code int) {
	if e == nil {
		return
	}
	e.event.code = code
	if e.event.status != nil {
		e.event.status.Code = int32(code)
	}
	if code == 0 && e.event.status == nil {
		e.event.status = &metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"}
	}
	stage := auditv1.StageResponseComplete
	switch {
	case e.event.user == nil:
		stage = auditv1.StageResponseStarted
	case e.isWatch:
		e.Start(code)
	}
	e.record(stage, time.Now())
	e.log.release(e)
}

// EndPanic writes the line of a request whose handler has panicked with the cause, in place of
// End's.
func (e *Entry) EndPanic(cause any) {
	if e == nil {
		return
	}
	text := fmt.Sprintf("APIServer panic'd: %v", cause)
	e.event.status = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
		Message: text[:min(len(text), maxReason)],
	}
	e.event.responseObject = nil
	e.record(auditv1.StagePanic, time.Now())
	e.log.release(e)
}

// record writes the line of a stage, unless the policy omits it.
func (e *Entry) record(stage auditv1.Stage, at time.Time) {
	if !slices.Contains(e.decision.omitStages, stage) {
		e.log.record(&e.event, stage, at)
	}
}
