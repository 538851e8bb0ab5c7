package main

import (
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/common"
)

// part is the content of one OpenAPI v3 document: a root and the routes below it. It
// implements common.RouteContainer of kube-openapi's builders.
type part struct {
	root   string
	gv     schema.GroupVersion // zero if the root is not a group version's
	routes []common.Route
}

func (p *part) RootPath() string                   { return p.root }
func (p *part) PathParameters() []common.Parameter { return nil }
func (p *part) Routes() []common.Route             { return p.routes }

// route is one operation on a path. It implements common.Route.
type route struct {
	path, method string
	id           string // of the operation
	tag          string
	doc          string
	action       string // "" if the route is not a resource's
	kind         schema.GroupVersionKind
	parameters   []common.Parameter
	consumes     []string // media types of the body
	body         any      // nil if there is none
	produces     []string
	answers      []common.StatusCodeResponse
}

func (r *route) Method() string                                   { return r.method }
func (r *route) Path() string                                     { return r.path }
func (r *route) OperationName() string                            { return r.id }
func (r *route) Parameters() []common.Parameter                   { return r.parameters }
func (r *route) Description() string                              { return r.doc }
func (r *route) Consumes() []string                               { return r.consumes }
func (r *route) Produces() []string                               { return r.produces }
func (r *route) RequestPayloadSample() any                        { return r.body }
func (r *route) ResponsePayloadSample() any                       { return nil }
func (r *route) StatusCodeResponses() []common.StatusCodeResponse { return r.answers }

func (r *route) Metadata() map[string]any {
	if r.action == "" {
		return nil
	}
	return map[string]any{
		"x-kubernetes-action":             r.action,
		"x-kubernetes-group-version-kind": metav1.GroupVersionKind(r.kind),
	}
}

func operationIDAndTags(r common.Route) (id string, tags []string, err error) {
	route := r.(*route)
	return route.id, []string{route.tag}, nil
}

// answer is a status code with the model of its body. It implements
// common.StatusCodeResponse.
type answer struct {
	code  int
	model any
}

func (a answer) Code() int       { return a.code }
func (a answer) Message() string { return http.StatusText(a.code) }
func (a answer) Model() any      { return a.model }

// failures returns Status responses with the codes, and with those that any request may
// result in.
func failures(codes ...int) []common.StatusCodeResponse {
	codes = append(codes, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotAcceptable,
		http.StatusTooManyRequests, http.StatusInternalServerError)
	slices.Sort(codes)
	var answers []common.StatusCodeResponse
	for _, code := range codes {
		answers = append(answers, answer{code, metav1.Status{}})
	}
	return answers
}

// title turns a name into a part of an operation ID: networking.k8s.io into Networking.
func title(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.TrimSuffix(name, ".k8s.io"), ".") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
