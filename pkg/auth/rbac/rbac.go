// Package rbac decides by the roles and bindings of rbac.authorization.k8s.io/v1 who may do
// what, as kube-apiserver's RBAC does. It is fed with the objects as they change, and keeps them
// by subject, so that a decision looks at nothing but what its user is bound to.
package rbac

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds of objects that decide.
const (
	KindRole               = "Role"
	KindClusterRole        = "ClusterRole"
	KindRoleBinding        = "RoleBinding"
	KindClusterRoleBinding = "ClusterRoleBinding"
)

// Authorizer is an auth.Authorizer that knows roles and bindings. Create it with New. Its
// methods are safe for concurrent use; objects that it is given must not be changed any more.
type Authorizer struct {
	mu       sync.RWMutex
	roles    map[key]*role
	bindings map[key]*binding
	scopes   map[string]*scope // by namespace; "" is the whole server's
	cluster  map[string]*rbacv1.ClusterRole
	changed  chan struct{} // closed and replaced at each change
}

// key names an object. Those of the whole server have no namespace.
type key struct{ kind, namespace, name string }

// role is a role that exists, or one that bindings name.
type role struct {
	key
	exists bool
	rules  []rbacv1.PolicyRule
	cost   int // of looking at the rules
	named  int // by how many bindings
}

// binding gives its role to its subjects.
type binding struct {
	key
	role     *role
	subjects []rbacv1.Subject
}

// scope is what is granted in one namespace, or in the whole server.
type scope struct {
	users, groups map[string][]*grant // none is empty
	bindings      int                 // whoever their subjects are
}

// grant is a role that a subject has, and by which bindings: at least one.
type grant struct {
	role *role
	by   []*given
}

// given is a place of a subject in a binding.
type given struct {
	binding *binding
	subject int                    // its first place in the binding's subjects
	reason  atomic.Pointer[string] // made when it first decides
}

// New returns an Authorizer that knows no objects, and so allows nothing except to
// system:masters.
func New() *Authorizer {
	return &Authorizer{
		roles: map[key]*role{}, bindings: map[key]*binding{}, scopes: map[string]*scope{}, cluster: map[string]*rbacv1.ClusterRole{},
		changed: make(chan struct{}),
	}
}

// Changed returns a channel that is closed when any object changes after the call.
func (a *Authorizer) Changed() <-chan struct{} {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.changed
}

// Set takes an object in, or replaces it by a newer state: a *rbacv1.Role, RoleBinding,
// ClusterRole or ClusterRoleBinding. Any other type is a programmer's error and panics.
func (a *Authorizer) Set(obj metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(obj)
	a.signal()
}

// Delete removes the object of the kind, if it is there. namespace is "" for the kinds that live
// in none.
func (a *Authorizer) Delete(kind, namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.delete(key{kind, namespace, name})
	a.signal()
}

// Replace makes objs all that there are of the kind, at once.
func (a *Authorizer) Replace(kind string, objs []metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := map[key]bool{}
	for k, r := range a.roles {
		left[k] = r.exists
	}
	for k := range a.bindings {
		left[k] = true
	}
	for _, obj := range objs {
		delete(left, a.set(obj))
	}
	for k, exists := range left {
		if exists && k.kind == kind {
			a.delete(k)
		}
	}
	a.signal()
}

// signal tells of a change; a.mu must be held.
func (a *Authorizer) signal() {
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *Authorizer) set(obj metav1.Object) key {
	k := key{"", obj.GetNamespace(), obj.GetName()}
	switch obj := obj.(type) {
	case *rbacv1.Role:
		k.kind = KindRole
		a.setRole(k, obj.Rules)
	case *rbacv1.ClusterRole:
		k.kind = KindClusterRole
		a.setRole(k, obj.Rules)
		a.cluster[k.name] = obj
	case *rbacv1.RoleBinding:
		k.kind = KindRoleBinding
		a.setBinding(k, obj.RoleRef, obj.Subjects)
	case *rbacv1.ClusterRoleBinding:
		k.kind = KindClusterRoleBinding
		a.setBinding(k, obj.RoleRef, obj.Subjects)
	default:
		panic(fmt.Sprintf("rbac: a %T is neither a role nor a binding", obj))
	}
	return k
}

func (a *Authorizer) setRole(k key, rules []rbacv1.PolicyRule) {
	r := a.role(k)
	r.exists, r.rules, r.cost = true, rules, costOf(rules)
}

// role returns the role of that key, which need not exist.
func (a *Authorizer) role(k key) *role {
	r := a.roles[k]
	if r == nil {
		r = &role{key: k, cost: costOf(nil)}
		a.roles[k] = r
	}
	return r
}

func (a *Authorizer) setBinding(k key, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	a.delete(k)
	of := key{ref.Kind, "", ref.Name}
	if ref.Kind == KindRole {
		of.namespace = k.namespace
	}
	b := &binding{key: k, role: a.role(of), subjects: subjects}
	b.role.named++
	a.bindings[k] = b
	in := a.scopes[k.namespace]
	if in == nil {
		in = &scope{users: map[string][]*grant{}, groups: map[string][]*grant{}}
		a.scopes[k.namespace] = in
	}
	in.bindings++
	for i := range subjects {
		if names, name := in.of(b, i); names != nil {
			names[name] = add(names[name], b, i)
		}
	}
}

// of returns where the scope keeps what the subject of the binding has, and under which name;
// nil: it is nobody.
func (s *scope) of(b *binding, subject int) (map[string][]*grant, string) {
	switch sub := &b.subjects[subject]; sub.Kind {
	case rbacv1.UserKind:
		return s.users, sub.Name
	case rbacv1.GroupKind:
		return s.groups, sub.Name
	case rbacv1.ServiceAccountKind:
		if name := b.serviceAccount(sub); name != "" {
			return s.users, name
		}
	}
	return nil, ""
}

// serviceAccount is the user name of a service account: its namespace is the binding's where it
// names none. "" for one that has none either, which is nobody.
func (b *binding) serviceAccount(sub *rbacv1.Subject) string {
	namespace := b.accountNamespace(sub)
	if namespace == "" {
		return ""
	}
	return "system:serviceaccount:" + namespace + ":" + sub.Name
}

func (b *binding) accountNamespace(sub *rbacv1.Subject) string {
	if sub.Namespace != "" {
		return sub.Namespace
	}
	return b.namespace
}

// add returns the grants of a subject with those of the binding.
func add(grants []*grant, b *binding, subject int) []*grant {
	one := &given{binding: b, subject: subject}
	i := slices.IndexFunc(grants, func(g *grant) bool { return g.role == b.role })
	if i < 0 {
		return append(grants, &grant{role: b.role, by: []*given{one}})
	}
	if last := grants[i].by[len(grants[i].by)-1]; last.binding != b { // it may name a subject twice
		grants[i].by = append(grants[i].by, one)
	}
	return grants
}

// remove returns the grants of a subject without those of the binding.
func remove(grants []*grant, b *binding) []*grant {
	i := slices.IndexFunc(grants, func(g *grant) bool { return g.role == b.role })
	if i < 0 {
		return grants
	}
	g := grants[i]
	g.by = slices.DeleteFunc(g.by, func(one *given) bool { return one.binding == b })
	if len(g.by) == 0 {
		return slices.Delete(grants, i, i+1)
	}
	return grants
}

// delete removes an object; a.mu must be held.
func (a *Authorizer) delete(k key) {
	if r := a.roles[k]; r != nil {
		r.exists, r.rules, r.cost = false, nil, costOf(nil)
		a.forget(r)
	}
	if k.kind == KindClusterRole {
		delete(a.cluster, k.name)
	}
	b := a.bindings[k]
	if b == nil {
		return
	}
	delete(a.bindings, k)
	in := a.scopes[k.namespace]
	for i := range b.subjects {
		names, name := in.of(b, i)
		if names == nil {
			continue
		}
		if rest := remove(names[name], b); len(rest) > 0 {
			names[name] = rest
		} else {
			delete(names, name)
		}
	}
	if in.bindings--; in.bindings == 0 {
		delete(a.scopes, k.namespace)
	}
	b.role.named--
	a.forget(b.role)
}

// forget drops a role that neither exists nor is named.
func (a *Authorizer) forget(r *role) {
	if !r.exists && r.named == 0 {
		delete(a.roles, r.key)
	}
}

// because is why the binding allows something to the subject, in kube-apiserver's words.
func (g *given) because() string {
	if known := g.reason.Load(); known != nil {
		return *known
	}
	reason := g.binding.because(g.subject)
	g.reason.Store(&reason)
	return reason
}

func (b *binding) because(subject int) string {
	name, sub := shortened(b.name), &b.subjects[subject]
	if b.namespace != "" {
		name += "/" + b.namespace
	}
	to := sub.Name
	if sub.Kind == rbacv1.ServiceAccountKind {
		to += "/" + b.accountNamespace(sub)
	}
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", b.kind, name, b.role.kind, shortened(b.role.name), sub.Kind, to)
}

// maxNameBytes bounds the names of objects in texts, and the entries of rules. Kubernetes bounds
// neither, but few names are longer.
const maxNameBytes = 256

// shortened returns a name as texts have it, which may be repeated in many answers and in logs.
func shortened(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	return strings.ToValidUTF8(name[:maxNameBytes], "") + "…"
}
