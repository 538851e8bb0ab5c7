package auth

import (
	"context"
	"fmt"
	"strings"
)

// Attributes is what a request asks to do, in the words of a Kubernetes authorizer.
type Attributes struct {
	User *User  // nil when nobody is known
	Verb string // get list watch create update patch delete deletecollection; the lower-case method for a path

	// ResourceRequest says which of the following counts: the fields of a resource,
	// or Path.
	ResourceRequest bool

	APIGroup    string // "" is the core group
	Resource    string
	Subresource string // "" when there is none
	Namespace   string // "" at the cluster scope, and for a request across all namespaces
	Name        string // "" where the verb names no object

	Path string // as in the URL
}

// Authorizer decides whether a request may do what it asks.
type Authorizer interface {
	// Authorize returns whether a is allowed. The reason may be empty; with a refusal
	// it is shown to the client, with a permission it is for logs. After an error,
	// which is never the client's fault, nothing is allowed.
	Authorize(ctx context.Context, a Attributes) (allowed bool, reason string, err error)
}

// AlwaysAllow is the Authorizer of --authorization-mode=AlwaysAllow.
type AlwaysAllow struct{}

// Authorize allows everything.
func (AlwaysAllow) Authorize(context.Context, Attributes) (allowed bool, reason string, err error) {
	return true, "", nil
}

// htmlSanitizer keeps a message from looking like HTML, as kube-apiserver does.
var htmlSanitizer = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// ForbiddenMessage returns why a was refused, in kube-apiserver's words. It is the
// text of the error to hand to k8s.io/apimachinery's NewForbidden, which puts the
// resource and the name before it. An empty reason is left out.
func ForbiddenMessage(a Attributes, reason string) string {
	msg := htmlSanitizer.Replace(refusal(a))
	if reason != "" {
		msg += ": " + reason
	}
	return msg
}

func refusal(a Attributes) string {
	name := ""
	if a.User != nil {
		name = a.User.Name
	}
	if !a.ResourceRequest {
		return fmt.Sprintf("User %q cannot %s path %q", name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	scope := "at the cluster scope"
	if a.Namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", name, a.Verb, resource, a.APIGroup, scope)
}
