package audit

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// event is an Event of audit.k8s.io/v1, in the form of which the least has to be copied.
type event struct {
	level          Level
	auditID        string
	uri, verb      string
	user           *auth.User // nil for a request that failed to authenticate
	impersonated   *auth.User
	constraint     string // of constrained impersonation
	sourceIPs      []string
	userAgent      string
	ref            *auditv1.ObjectReference // nil for what is no resource
	status         *metav1.Status
	code           int // where status is nil; 0 before there is an answer
	requestObject  []byte
	responseObject []byte
	received       time.Time
	decided        bool // whether an authorizer has decided
	decision       string
	reason         string
	truncated      bool
}

// maxUserAgent is how many bytes kube-apiserver records of a User-Agent.
const maxUserAgent = 1024

func userAgentOf(req *http.Request) string {
	agent := req.UserAgent()
	if len(agent) > maxUserAgent {
		agent = agent[:maxUserAgent] + "...TRUNCATED"
	}
	return agent
}

func sourceIPsOf(req *http.Request) []string {
	ips := utilnet.SourceIPs(req)
	texts := make([]string, len(ips))
	for i, ip := range ips {
		texts[i] = ip.String()
	}
	return texts
}

func referenceOf(a *auth.Attributes) *auditv1.ObjectReference {
	if !a.ResourceRequest {
		return nil
	}
	return &auditv1.ObjectReference{
		Resource: a.Resource, Namespace: a.Namespace, Name: a.Name,
		APIGroup: a.APIGroup, APIVersion: a.APIVersion, Subresource: a.Subresource,
	}
}

// append appends the event's line for the stage, which begins at a time. It is what
// encoding/json makes of an auditv1.Event, for a quarter of the time: every request pays it.
func (e *event) append(dst []byte, stage auditv1.Stage, at time.Time) []byte {
	dst = append(dst, `{"kind":"Event","apiVersion":"audit.k8s.io/v1"`...)
	dst = appendMember(dst, "level", e.level.String())
	dst = appendMember(dst, "auditID", e.auditID)
	dst = appendMember(dst, "stage", string(stage))
	dst = appendMember(dst, "requestURI", e.uri)
	dst = appendMember(dst, "verb", e.verb)
	dst = appendUser(append(dst, `,"user":`...), e.user)
	answered := stage != auditv1.StageRequestReceived
	if answered && e.impersonated != nil {
		dst = appendUser(append(dst, `,"impersonatedUser":`...), e.impersonated)
		if e.constraint != "" {
			dst = append(dst, `,"authenticationMetadata":{"impersonationConstraint":`...)
			dst = append(appendString(dst, e.constraint), '}')
		}
	}
	if len(e.sourceIPs) > 0 {
		dst = appendStrings(append(dst, `,"sourceIPs":`...), e.sourceIPs)
	}
	dst = appendMember(dst, "userAgent", e.userAgent)
	dst = appendReference(dst, e.ref)
	if answered {
		dst = e.appendAnswer(dst)
	}
	dst = appendTime(append(dst, `,"requestReceivedTimestamp":`...), e.received)
	dst = appendTime(append(dst, `,"stageTimestamp":`...), at)
	if answered {
		dst = e.appendAnnotations(dst)
	}
	return append(dst, "}\n"...)
}

func (e *event) appendAnswer(dst []byte) []byte {
	dst = append(dst, `,"responseStatus":`...)
	if e.status == nil {
		dst = append(dst, `{"metadata":{},"code":`...)
		dst = append(strconv.AppendInt(dst, int64(e.code), 10), '}')
	} else {
		status := *e.status
		status.TypeMeta = metav1.TypeMeta{}
		dst = appendJSON(dst, &status)
	}
	if e.requestObject != nil {
		dst = append(append(dst, `,"requestObject":`...), e.requestObject...)
	}
	if e.responseObject != nil {
		dst = append(append(dst, `,"responseObject":`...), e.responseObject...)
	}
	return dst
}

// appendAnnotations appends those that there are, sorted.
func (e *event) appendAnnotations(dst []byte) []byte {
	if !e.decided && !e.truncated {
		return dst
	}
	dst = append(dst, `,"annotations":{`...)
	if e.truncated {
		dst = append(dst, `"audit.k8s.io/truncated":"true"`...)
	}
	if e.truncated && e.decided {
		dst = append(dst, ',')
	}
	if e.decided {
		if e.decision != "" {
			dst = append(dst, `"authorization.k8s.io/decision":`...)
			dst = append(appendString(dst, e.decision), ',')
		}
		dst = append(dst, `"authorization.k8s.io/reason":`...)
		dst = appendString(dst, e.reason)
	}
	return append(dst, '}')
}

// required are the members that an event and an object reference have even if they are empty.
var required = []string{"requestURI", "verb"}

func appendMember(dst []byte, name, value string) []byte {
	if value == "" && !slices.Contains(required, name) {
		return dst
	}
	dst = append(append(append(comma(dst), '"'), name...), `":`...)
	return appendString(dst, value)
}

func appendUser(dst []byte, u *auth.User) []byte {
	if u == nil {
		return append(dst, "{}"...)
	}
	dst = append(dst, '{')
	dst = appendMember(dst, "username", u.Name)
	dst = appendMember(dst, "uid", u.UID)
	if len(u.Groups) > 0 {
		dst = appendStrings(append(comma(dst), `"groups":`...), u.Groups)
	}
	if len(u.Extra) > 0 {
		dst = append(comma(dst), `"extra":{`...)
		for _, key := range slices.Sorted(maps.Keys(u.Extra)) {
			dst = append(appendString(comma(dst), key), ':')
			dst = appendStrings(dst, u.Extra[key])
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

func appendReference(dst []byte, r *auditv1.ObjectReference) []byte {
	if r == nil {
		return dst
	}
	dst = append(dst, `,"objectRef":{`...)
	dst = appendMember(dst, "resource", r.Resource)
	dst = appendMember(dst, "namespace", r.Namespace)
	dst = appendMember(dst, "name", r.Name)
	dst = appendMember(dst, "uid", string(r.UID))
	dst = appendMember(dst, "apiGroup", r.APIGroup)
	dst = appendMember(dst, "apiVersion", r.APIVersion)
	dst = appendMember(dst, "resourceVersion", r.ResourceVersion)
	dst = appendMember(dst, "subresource", r.Subresource)
	return append(dst, '}')
}

// comma separates what follows from a member before it.
func comma(dst []byte) []byte {
	if dst[len(dst)-1] == '{' {
		return dst
	}
	return append(dst, ',')
}

func appendStrings(dst []byte, values []string) []byte {
	if values == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, value)
	}
	return append(dst, ']')
}

// appendString appends text as encoding/json does, which also makes <, > and & harmless.
func appendString(dst []byte, text string) []byte {
	begin, copied := len(dst), 0
	dst = append(dst, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c > '~', c == '<', c == '>', c == '&':
			return appendJSON(dst[:begin], text)
		case c == '"', c == '\\':
			dst = append(append(dst, text[copied:i]...), '\\')
			copied = i
		}
	}
	return append(append(dst, text[copied:]...), '"')
}

func appendJSON(dst []byte, value any) []byte {
	encoded, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return append(dst, encoded...)
}

func appendTime(dst []byte, at time.Time) []byte {
	dst = at.UTC().AppendFormat(append(dst, '"'), metav1.RFC3339Micro)
	return append(dst, '"')
}
