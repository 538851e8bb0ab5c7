package auth

import (
	"context"
	"fmt"
	"strings"
)

// Attributes describes what a request asks to do, in the terms of a Kubernetes authorizer.
type Attributes struct {
	User *User // nil if the user is not known
	// Verb is get list watch create update patch delete deletecollection, "" for a method that means
	// nothing for resources, or the method in lower case for a path.
	Verb string

	// ResourceRequest is true if the resource fields below apply, false if Path does.
	ResourceRequest bool

	APIGroup    string // "" is the core group
	APIVersion  string
	Resource    string
	Subresource string // "" if there is none
	Namespace   string // "" at the cluster scope, and for a request across all namespaces
	Name        string // "" if the verb names no object

	Path string // as in the URL
}

// Authorizer decides whether a request is allowed.
type Authorizer interface {
	// Authorize reports whether a is allowed. The reason may be empty; it is shown to
	// the client if a is denied, and is for logs otherwise. An error is always an
	// internal one, and means that a is not allowed.
	Authorize(ctx context.Context, a Attributes) (allowed bool, reason string, err error)
}

// Changing is an Authorizer whose decisions change while it is in use.
type Changing interface {
	Authorizer
	// Changed returns a channel that is closed once decisions may differ from those that were made
	// before the call.
	Changed() <-chan struct{}
}

// AlwaysAllow is the Authorizer of --authorization-mode=AlwaysAllow.
type AlwaysAllow struct{}

// Authorize allows every request.
func (AlwaysAllow) Authorize(context.Context, Attributes) (allowed bool, reason string, err error) {
	return true, "", nil
}

// htmlSanitizer keeps a message from being rendered as HTML, as in kube-apiserver.
var htmlSanitizer = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// ForbiddenMessage returns why a was denied, in kube-apiserver's words. It is the text
// of the error to pass to k8s.io/apimachinery's NewForbidden, which prepends the
// resource and the name. An empty reason is omitted.
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
