package auth

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// allowed is an Authorizer of what it holds: verb, group/resource, namespace/name.
type allowed []string

func (a allowed) Authorize(_ context.Context, attrs Attributes) (bool, string, error) {
	return slices.Contains(a, "*") || slices.Contains(a, question(attrs)), "", nil
}

func question(attrs Attributes) string {
	resource := attrs.Resource
	if attrs.Subresource != "" {
		resource += "/" + attrs.Subresource
	}
	return fmt.Sprintf("%s %s/%s %s/%s", attrs.Verb, attrs.APIGroup, resource, attrs.Namespace, attrs.Name)
}

func TestImpersonation(t *testing.T) {
	const (
		account = "system:serviceaccount:n:bot"
		onGet   = "impersonate-on:user-info:get /endpoints n/web"
		user    = "impersonate:user-info authentication.k8s.io/users /alice"
	)
	groups := func(groups ...string) []string { return groups }
	for name, tc := range map[string]struct {
		rights     allowed
		extra      map[string][]string // of the one who asks
		as         User
		constraint string
		groups     []string // of the one who is impersonated
		refused    string
	}{
		"nothing":               {nil, nil, User{Name: "alice"}, "", nil, onGet},
		"on the request alone":  {allowed{onGet}, nil, User{Name: "alice"}, "", nil, user},
		"constrained":           {allowed{onGet, user}, nil, User{Name: "alice"}, "impersonate:user-info", groups("system:authenticated"), ""},
		"constrained, a group":  {allowed{onGet, user, "impersonate:user-info authentication.k8s.io/groups /g"}, nil, User{Name: "alice", Groups: groups("g")}, "impersonate:user-info", groups("g", "system:authenticated"), ""},
		"another group":         {allowed{onGet, user, "impersonate:user-info authentication.k8s.io/groups /g"}, nil, User{Name: "alice", Groups: groups("h")}, "", nil, "impersonate:user-info authentication.k8s.io/groups /h"},
		"all rights":            {allowed{"*"}, nil, User{Name: "alice"}, "impersonate:user-info", groups("system:authenticated"), ""},
		"masters by all rights": {allowed{"*"}, nil, User{Name: "alice", Groups: groups("system:masters")}, "", groups("system:masters", "system:authenticated"), ""},
		"masters, constrained": {
			allowed{onGet, user, "impersonate:user-info authentication.k8s.io/groups /system:masters"}, nil,
			User{Name: "alice", Groups: groups("system:masters")}, "", nil, "impersonate /users /alice",
		},
		"unconstrained":  {allowed{"impersonate /users /alice"}, nil, User{Name: "alice"}, "", groups("system:authenticated"), ""},
		"with a uid":     {allowed{"impersonate /users /alice"}, nil, User{Name: "alice", UID: "1"}, "", nil, onGet},
		"with its uid":   {allowed{"impersonate /users /alice", "impersonate authentication.k8s.io/uids /1"}, nil, User{Name: "alice", UID: "1"}, "", groups("system:authenticated"), ""},
		"with extra":     {allowed{"impersonate /users /alice", "impersonate authentication.k8s.io/userextras/k /a"}, nil, User{Name: "alice", Extra: map[string][]string{"k": {"a", "b"}}}, "", nil, onGet},
		"with its extra": {allowed{"impersonate /users /alice", "impersonate authentication.k8s.io/userextras/k /a"}, nil, User{Name: "alice", Extra: map[string][]string{"k": {"a"}}}, "", groups("system:authenticated"), ""},
		"extra without a domain": {
			allowed{onGet, user, "impersonate:user-info authentication.k8s.io/userextras/k /a"}, nil,
			User{Name: "alice", Extra: map[string][]string{"k": {"a"}}}, "", nil, "impersonate /users /alice",
		},

		"an account": {
			allowed{"impersonate-on:serviceaccount:get /endpoints n/web", "impersonate:serviceaccount authentication.k8s.io/serviceaccounts n/bot"}, nil,
			User{Name: account}, "impersonate:serviceaccount", groups("system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"), "",
		},
		"an account, unconstrained":       {allowed{"impersonate /serviceaccounts n/bot"}, nil, User{Name: account}, "", groups("system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"), ""},
		"an account with a group":         {nil, nil, User{Name: account, Groups: groups("g")}, "", nil, "impersonate /serviceaccounts n/bot"},
		"an account as a user":            {allowed{"impersonate /users /" + account}, nil, User{Name: account}, "", nil, "impersonate-on:serviceaccount:get /endpoints n/web"},
		"an account by rights of a user":  {allowed{"impersonate-on:user-info:get /endpoints n/web", "impersonate:user-info authentication.k8s.io/users /" + account}, nil, User{Name: account}, "", nil, "impersonate-on:serviceaccount:get /endpoints n/web"},
		"a node":                          {allowed{"impersonate-on:arbitrary-node:get /endpoints n/web", "impersonate:arbitrary-node authentication.k8s.io/nodes /n1"}, nil, User{Name: "system:node:n1"}, "impersonate:arbitrary-node", groups("system:authenticated"), ""},
		"another node":                    {allowed{"impersonate-on:arbitrary-node:get /endpoints n/web", "impersonate:arbitrary-node authentication.k8s.io/nodes /n2"}, nil, User{Name: "system:node:n1"}, "", nil, "impersonate:arbitrary-node authentication.k8s.io/nodes /n1"},
		"anonymous":                       {allowed{"impersonate /users /system:anonymous"}, nil, User{Name: Anonymous}, "", groups("system:unauthenticated"), ""},
		"unauthenticated":                 {allowed{"*"}, nil, User{Name: "alice", Groups: groups(AllUnauthenticated)}, "impersonate:user-info", groups(AllUnauthenticated), ""},
		"authenticated, said":             {allowed{"*"}, nil, User{Name: "alice", Groups: groups(AllAuthenticated)}, "impersonate:user-info", groups(AllAuthenticated), ""},
		"an account's name with a colon":  {nil, nil, User{Name: account + ":x"}, "", nil, onGet},
		"an account without a name":       {nil, nil, User{Name: "system:serviceaccount:n:"}, "", nil, onGet},
		"an empty group, by all rights":   {allowed{"*"}, nil, User{Name: "alice", Groups: groups("")}, "", groups("", "system:authenticated"), ""},
		"a node by a user not of its own": {nil, map[string][]string{nodeNameKey: {"n1"}}, User{Name: "system:node:n1"}, "", nil, "impersonate-on:arbitrary-node:get /endpoints n/web"},
	} {
		attrs := Attributes{User: &User{Name: "bob", Extra: tc.extra}, ResourceRequest: true, Verb: "get", Resource: "endpoints", Namespace: "n", Name: "web"}
		given := slices.Clone(tc.as.Groups)
		got, refused, _, err := new(Impersonators).Impersonate(t.Context(), tc.rights, attrs, tc.as)
		if err != nil {
			t.Fatal(err)
		}
		asked := ""
		if refused != nil {
			asked = question(*refused)
		}
		if (got == nil) != (tc.groups == nil) || asked != tc.refused {
			t.Errorf("%s: got %+v, refused %q, want %q", name, got, asked, tc.refused)
			continue
		}
		if got != nil && (got.Constraint != tc.constraint || got.User.Name != tc.as.Name || got.User.UID != tc.as.UID || !cmp.Equal(got.User.Groups, tc.groups) || !cmp.Equal(got.User.Extra, tc.as.Extra)) {
			t.Errorf("%s: got %+v by %q, want the groups %q by %q", name, got.User, got.Constraint, tc.groups, tc.constraint)
		}
		if !slices.Equal(given, tc.as.Groups) {
			t.Errorf("%s: the groups that were given have changed", name)
		}
	}
}

// TestLastModeFirst has the mode that allowed a user's last impersonation tried before the others.
func TestLastModeFirst(t *testing.T) {
	var users Impersonators
	impersonate := func(rights allowed, user string, as User) string {
		t.Helper()
		attrs := Attributes{User: &User{Name: user}, ResourceRequest: true, Verb: "get", Resource: "endpoints", Namespace: "n", Name: "web"}
		got, refused, _, err := users.Impersonate(t.Context(), rights, attrs, as)
		switch {
		case err != nil:
			t.Fatal(err)
		case got == nil:
			return question(*refused)
		}
		return got.Constraint
	}
	alice, account := User{Name: "alice"}, User{Name: "system:serviceaccount:n:bot"}
	withExtra := User{Name: "alice", Extra: map[string][]string{"k": {"a"}}}
	for i, step := range []struct {
		user   string
		rights allowed
		as     User
		want   string
	}{
		{"bob", allowed{"*"}, alice, "impersonate:user-info"},
		{"bob", allowed{"*"}, account, "impersonate:serviceaccount"},
		{"bob", allowed{"*"}, withExtra, ""},
		{"bob", allowed{"*"}, alice, ""},
		{"bob", allowed{"*"}, account, ""},
		{"bob", nil, alice, "impersonate /users /alice"},
		{"carol", nil, alice, "impersonate-on:user-info:get /endpoints n/web"},
		{"carol", allowed{"*"}, alice, "impersonate:user-info"},
		{"bob", allowed{"*"}, alice, ""},
	} {
		if got := impersonate(step.rights, step.user, step.as); got != step.want {
			t.Errorf("%d: got %q, want %q", i, got, step.want)
		}
	}
	for i := range 3 * maxImpersonators {
		impersonate(allowed{"*"}, fmt.Sprint(i), alice)
	}
	if len(users.last) > maxImpersonators {
		t.Errorf("%d users are remembered", len(users.last))
	}
}
