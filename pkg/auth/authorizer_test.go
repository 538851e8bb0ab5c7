package auth

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The texts are kube-apiserver's for the same requests.
func TestForbiddenMessage(t *testing.T) {
	bob := &User{Name: "bob"}
	for _, tt := range []struct {
		name   string
		a      Attributes
		reason string
		want   string
	}{
		{
			name: "list in a namespace",
			a:    Attributes{User: bob, Verb: "list", ResourceRequest: true, Resource: "endpoints", Namespace: "default"},
			want: `endpoints is forbidden: User "bob" cannot list resource "endpoints" in API group "" in the namespace "default"`,
		},
		{
			name: "one object, with a reason",
			a: Attributes{User: bob, Verb: "get", ResourceRequest: true, APIGroup: "apps", Resource: "deployments",
				Subresource: "status", Namespace: "n1", Name: "web"},
			reason: "no role",
			want:   `deployments.apps "web" is forbidden: User "bob" cannot get resource "deployments/status" in API group "apps" in the namespace "n1": no role`,
		},
		{
			name: "cluster scope",
			a:    Attributes{User: bob, Verb: "watch", ResourceRequest: true, Resource: "endpoints"},
			want: `endpoints is forbidden: User "bob" cannot watch resource "endpoints" in API group "" at the cluster scope`,
		},
		{
			name: "a path, no user, and text that could look like HTML",
			a:    Attributes{Verb: "get", Path: "/<b>&"},
			want: `forbidden: User "" cannot get path "/&lt;b&gt;&amp;"`,
		},
		{
			name: "a path",
			a:    Attributes{User: bob, Verb: "get", Path: "/metrics"},
			want: `forbidden: User "bob" cannot get path "/metrics"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gr := schema.GroupResource{Group: tt.a.APIGroup, Resource: tt.a.Resource}
			got := apierrors.NewForbidden(gr, tt.a.Name, errors.New(ForbiddenMessage(tt.a, tt.reason))).Error()
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAlwaysAllow(t *testing.T) {
	var authorizer Authorizer = AlwaysAllow{}
	allowed, reason, err := authorizer.Authorize(t.Context(), Attributes{Verb: "delete", ResourceRequest: true})
	if !allowed || reason != "" || err != nil {
		t.Errorf("got (%v, %q, %v), want (true, \"\", nil)", allowed, reason, err)
	}
}
