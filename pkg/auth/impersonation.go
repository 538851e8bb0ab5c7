package auth

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// authenticationGroup is the API group of what constrained impersonation asks for.
const authenticationGroup = "authentication.k8s.io"

const (
	serviceAccountPrefix = "system:serviceaccount:"
	serviceAccountsGroup = "system:serviceaccounts"
	nodePrefix           = "system:node:"
	nodeNameKey          = "authentication.kubernetes.io/node-name"
)

// Impersonated is who a request is made as.
type Impersonated struct {
	User *User
	// Constraint is the verb of constrained impersonation that allowed it, such as
	// impersonate:user-info; "" is the verb impersonate, which allows all requests.
	Constraint string
}

// maxImpersonators bounds of how many users an Impersonators knows the mode.
const maxImpersonators = 1024

// Impersonators decides who may make requests as another user. The rules are those of
// kube-apiserver, whose constrained impersonation (KEP-5284) comes first: what it allows, it allows
// for that request alone. As there, the mode that has allowed a user's last impersonation is tried
// before the others, so that it is the one that the audit log names. The zero value is ready; it may
// be used by several goroutines at once.
type Impersonators struct {
	mutex sync.Mutex
	last  map[string]string // the mode's name, by that of the user
}

// Impersonate decides whether the user of attrs may make that request as another, whose name is not
// empty. refused is what it was refused for; nil: nothing was.
func (i *Impersonators) Impersonate(ctx context.Context, authorizer Authorizer, attrs Attributes, as User) (impersonated *Impersonated, refused *Attributes, reason string, err error) {
	for _, mode := range i.modes(attrs.User, &as) {
		asked := mode.asked
		if mode.name != "" {
			on := attrs
			on.Verb = "impersonate-on:" + mode.name + ":" + attrs.Verb
			asked = append([]Attributes{on}, asked...)
		}
		allowed := !mode.forbidden
		for _, one := range asked {
			one.User = attrs.User
			ok, why, err := authorizer.Authorize(ctx, one)
			if err != nil {
				return nil, nil, "", err
			}
			if !ok {
				if allowed = false; refused == nil {
					refused, reason = &one, why // the first refusal is told
				}
				break
			}
		}
		if allowed {
			i.remember(attrs.User.Name, mode.name)
			impersonated = &Impersonated{User: withImpliedGroups(as)}
			if mode.name != "" {
				impersonated.Constraint = "impersonate:" + mode.name
			}
			return impersonated, nil, "", nil
		}
	}
	return nil, refused, reason, nil
}

// modes returns the modes that there are for a user, in the order in which they are tried.
func (i *Impersonators) modes(user, as *User) []impersonationMode {
	modes := append(modesOf(user, as), impersonationMode{asked: unconstrained(as)})
	i.mutex.Lock()
	last, ok := i.last[user.Name]
	i.mutex.Unlock()
	if at := slices.IndexFunc(modes, func(mode impersonationMode) bool { return mode.name == last }); ok && at > 0 {
		first := modes[at]
		modes = slices.Insert(slices.Delete(modes, at, at+1), 0, first)
	}
	return modes
}

// remember notes the mode that has allowed a user to impersonate.
func (i *Impersonators) remember(user, mode string) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if _, ok := i.last[user]; i.last == nil || !ok && len(i.last) >= maxImpersonators {
		i.last = map[string]string{}
	}
	i.last[user] = mode
}

// impersonationMode is a way of impersonation.
type impersonationMode struct {
	name  string // of a constrained one; "" is the old one
	asked []Attributes
	// forbidden says that it allows nobody what is asked for.
	forbidden bool
}

// modesOf returns the ways of constrained impersonation that there are for a user, in the order in
// which they are tried.
func modesOf(user, as *User) []impersonationMode {
	nameAlone := as.UID == "" && len(as.Groups) == 0 && len(as.Extra) == 0
	resource := func(mode, resource, namespace, name string) Attributes {
		return Attributes{ResourceRequest: true, Verb: "impersonate:" + mode, APIGroup: authenticationGroup, APIVersion: "v1", Resource: resource, Namespace: namespace, Name: name}
	}
	if node, ok := strings.CutPrefix(as.Name, nodePrefix); ok {
		if !nameAlone {
			return nil
		}
		var modes []impersonationMode
		if slices.Contains(user.Extra[nodeNameKey], node) && strings.HasPrefix(user.Name, serviceAccountPrefix) {
			modes = append(modes, impersonationMode{name: "associated-node", asked: []Attributes{resource("associated-node", "nodes", "", "*")}})
		}
		return append(modes, impersonationMode{name: "arbitrary-node", asked: []Attributes{resource("arbitrary-node", "nodes", "", node)}})
	}
	if namespace, name, ok := ServiceAccount(as.Name); ok {
		if !nameAlone {
			return nil
		}
		return []impersonationMode{{name: "serviceaccount", asked: []Attributes{resource("serviceaccount", "serviceaccounts", namespace, name)}}}
	}
	const mode = "user-info"
	asked := []Attributes{resource(mode, "users", "", as.Name)}
	forbidden := false
	for _, group := range as.Groups {
		forbidden = forbidden || group == "" || group == SystemPrivilegedGroup
		asked = append(asked, resource(mode, "groups", "", group))
	}
	if as.UID != "" {
		asked = append(asked, resource(mode, "uids", "", as.UID))
	}
	for _, key := range slices.Sorted(maps.Keys(as.Extra)) {
		forbidden = forbidden || !strings.Contains(key, "/") // a key has a domain
		for _, value := range as.Extra[key] {
			extra := resource(mode, "userextras", "", value)
			extra.Subresource = key
			asked = append(asked, extra)
		}
	}
	return []impersonationMode{{mode, asked, forbidden}}
}

// unconstrained is what must be allowed to make any request as the user.
func unconstrained(as *User) []Attributes {
	resource := func(group, resource, name string) Attributes {
		return Attributes{ResourceRequest: true, Verb: "impersonate", APIGroup: group, APIVersion: "v1", Resource: resource, Name: name}
	}
	asked := []Attributes{resource("", "users", as.Name)}
	if namespace, name, ok := ServiceAccount(as.Name); ok {
		asked[0].Resource, asked[0].Namespace, asked[0].Name = "serviceaccounts", namespace, name
	}
	for _, group := range as.Groups {
		asked = append(asked, resource("", "groups", group))
	}
	for _, key := range slices.Sorted(maps.Keys(as.Extra)) {
		for _, value := range as.Extra[key] {
			extra := resource(authenticationGroup, "userextras", value)
			extra.Subresource = key
			asked = append(asked, extra)
		}
	}
	if as.UID != "" {
		asked = append(asked, resource(authenticationGroup, "uids", as.UID))
	}
	return asked
}

// ServiceAccount splits the user name of a service account into its namespace and name, and reports
// whether it is one.
func ServiceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, serviceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// withImpliedGroups returns the user with the groups that come with its name.
func withImpliedGroups(as User) *User {
	groups := slices.Clone(as.Groups)
	if namespace, _, ok := ServiceAccount(as.Name); ok && len(groups) == 0 {
		groups = []string{serviceAccountsGroup, serviceAccountsGroup + ":" + namespace}
	}
	switch implied := AllAuthenticated; {
	case slices.Contains(groups, AllUnauthenticated):
	default:
		if as.Name == Anonymous {
			implied = AllUnauthenticated
		}
		if !slices.Contains(groups, implied) {
			groups = append(groups, implied)
		}
	}
	as.Groups = groups
	return &as
}
