package iam

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/auth"
)

// Ref is the id and the name of something.
type Ref struct{ ID, Name string }

// Project is a project of the file.
type Project struct {
	Ref
	Enabled bool
}

// User is a user of the file.
type User struct {
	Ref
	Enabled bool
}

// Session is what a living token gives, as of when it was asked for.
type Session struct {
	// Identity is that of the Kubernetes API.
	Identity *auth.Identity

	hash      hash
	record    record
	revision  int64 // of its creation
	directory *directory
}

// Session returns what a token gives, nil if it is not a living one. It asks the store as
// Authenticate does.
func (s *Service) Session(ctx context.Context, secret string) (*Session, error) {
	return s.session(ctx, secret)
}

// grant returns what the token gives. It is alive: a session is made only of such a token.
func (s *Session) grant() grant {
	g, _ := s.directory.grant(&s.record)
	return g
}

// User returns the token's user.
func (s *Session) User() User {
	u := s.directory.users[s.record.user]
	return User{asRef(u.ref), u.enabled}
}

func asRef(r ref) Ref { return Ref{ID: r.id, Name: r.name} }

// Domain returns the only domain.
func (s *Session) Domain() Ref { return asRef(s.directory.config.domain) }

// Project returns the project that the token is scoped to, nil if it is not scoped to one.
func (s *Session) Project() *Ref {
	g := s.grant()
	if g.project == nil {
		return nil
	}
	r := asRef(g.project.ref)
	return &r
}

// OnDomain reports whether the token is scoped to the domain.
func (s *Session) OnDomain() bool { return s.record.scope.kind == domainScope }

// Scoped reports whether the token has a scope.
func (s *Session) Scoped() bool { return s.record.scope.kind != unscoped }

// Roles returns the roles in the scope.
func (s *Session) Roles() []Ref {
	roles := []Ref{}
	for _, name := range s.grant().roles {
		roles = append(roles, s.directory.roleRef(name))
	}
	return roles
}

// Methods returns how the token was issued.
func (s *Session) Methods() Methods { return s.record.methods }

// AuditIDs returns the token's audit id and, if it was made of another, that of the first one.
func (s *Session) AuditIDs() []string { return s.record.auditIDs() }

// Issued returns when the token was issued.
func (s *Session) Issued() time.Time { return time.UnixMicro(s.record.issued).UTC() }

// Expires returns until when the token is accepted.
func (s *Session) Expires() time.Time { return time.UnixMicro(s.record.expires).UTC() }

// Region is that of the catalog.
func (s *Session) Region() string { return s.directory.config.region }

// EndpointID returns an id for an endpoint, or a service, of the catalog.
func (s *Session) EndpointID(name string) string {
	return deriveID(s.directory.config.domain.id, "endpoint", name)
}

// Administrator reports whether the token may ask for others' tokens, users and projects: its
// scope has the role admin, and so has the user on the domain.
func (s *Session) Administrator() bool { return s.grant().administrator() }

// SameUser reports whether other is a token of the same user.
func (s *Session) SameUser(other *Session) bool { return s.record.user == other.record.user }

// Projects returns the projects in which the user with the id has a role, in the order of their
// names, and whether there is such a user.
func (s *Session) Projects(userID string) (projects []Project, ok bool) {
	u := s.directory.userByID(userID)
	if u == nil {
		return nil, false
	}
	for id := range u.inProjects {
		projects = append(projects, asProject(s.directory.projects[id]))
	}
	sortProjects(projects)
	return projects, true
}

// AllProjects returns all projects in the order of their names.
func (s *Session) AllProjects() []Project {
	projects := []Project{}
	for p := range maps.Values(s.directory.projects) {
		projects = append(projects, asProject(p))
	}
	sortProjects(projects)
	return projects
}

func asProject(p *project) Project { return Project{asRef(p.ref), p.enabled} }

func sortProjects(projects []Project) {
	slices.SortFunc(projects, func(a, b Project) int { return strings.Compare(a.Name, b.Name) })
}

// FindProject returns the project with the id, nil if there is none, and whether the token's user
// has a role in it.
func (s *Session) FindProject(projectID string) (found *Project, member bool) {
	p := s.directory.projectByID(projectID)
	if p == nil {
		return nil, false
	}
	one := asProject(p)
	return &one, len(s.directory.users[s.record.user].inProjects[p.id]) > 0
}

// FindUser returns the user with the id, nil if there is none.
func (s *Session) FindUser(userID string) *User {
	u := s.directory.userByID(userID)
	if u == nil {
		return nil
	}
	return &User{asRef(u.ref), u.enabled}
}

// HasDomainRole reports whether the user has a role on the domain.
func (s *Session) HasDomainRole() bool { return len(s.directory.users[s.record.user].onDomain) > 0 }

// Revoke ends the token on all servers. It returns ErrNotFound if somebody was faster. After any
// other error the token may live.
func (s *Service) Revoke(ctx context.Context, session *Session) error {
	// A client that goes away has asked all the same.
	found, err := s.delete(context.WithoutCancel(ctx), session.hash, session.revision)
	switch {
	case err != nil:
		return unavailable(err)
	case !found:
		return ErrNotFound
	}
	s.metrics.revoked.Inc()
	return nil
}
