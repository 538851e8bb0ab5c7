package iam

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/berth-project/berth/pkg/auth"
)

// Keys of auth.User.Extra, by which cloud-provider-openstack's webhook for Keystone names them.
const (
	extraPrefix      = "alpha.kubernetes.io/identity/"
	extraRoles       = extraPrefix + "roles"
	extraProjectID   = extraPrefix + "project/id"
	extraProjectName = extraPrefix + "project/name"
	extraDomainID    = extraPrefix + "user/domain/id"
	extraDomainName  = extraPrefix + "user/domain/name"
)

// directory is who there is, as one version of the file says. It is never modified once it is
// in use.
type directory struct {
	config       *config
	users        map[ID]*user
	userNames    map[string]*user
	projects     map[ID]*project
	projectNames map[string]*project
	// decoys are checked for users that there are not: the users' own hashes, in the order of the
	// file, so that such a check takes as long as that of one of the users.
	decoys []passwordHash
	seed   [sha256.Size]byte // of the choice among them
}

type user struct {
	ref
	id          ID
	enabled     bool
	password    passwordHash
	fingerprint fingerprint
	onDomain    []string // roles
	inProjects  map[ID][]string
}

type project struct {
	ref
	id         ID
	enabled    bool
	namespaces []string
}

func newDirectory(c *config) *directory {
	d := &directory{
		config: c, users: map[ID]*user{}, userNames: map[string]*user{},
		projects: map[ID]*project{}, projectNames: map[string]*project{},
	}
	for _, from := range c.projects {
		id, _ := parseID(from.id) // it is valid
		p := &project{ref: from.ref, id: id, enabled: from.enabled, namespaces: from.namespaces}
		d.projects[id], d.projectNames[p.name] = p, p
	}
	seed := sha256.New()
	for _, from := range c.users {
		id, _ := parseID(from.ref.id)
		u := &user{
			ref: from.ref, id: id, enabled: from.enabled,
			password: from.password, fingerprint: from.password.fingerprint(), inProjects: map[ID][]string{},
		}
		for _, a := range from.roles {
			if a.domain {
				u.onDomain = a.roles
			} else {
				u.inProjects[d.projectNames[a.project].id] = a.roles
			}
		}
		d.users[id], d.userNames[u.name] = u, u
		d.decoys = append(d.decoys, u.password)
		seed.Write([]byte(u.password.text))
	}
	seed.Sum(d.seed[:0])
	return d
}

// decoy returns what to check the password of an unknown user against, the same for a name each
// time. Without users it is a hash that nothing matches, and takes no time.
func (d *directory) decoy(name string) passwordHash {
	if len(d.decoys) == 0 {
		return passwordHash{}
	}
	sum := sha256.Sum256(append(d.seed[:], name...))
	return d.decoys[binary.BigEndian.Uint64(sum[:])%uint64(len(d.decoys))]
}

// userByID returns nil if there is no such user.
func (d *directory) userByID(text string) *user {
	if id, ok := parseID(text); ok {
		return d.users[id]
	}
	return nil
}

// projectByID returns nil if there is no such project.
func (d *directory) projectByID(text string) *project {
	if id, ok := parseID(text); ok {
		return d.projects[id]
	}
	return nil
}

// state is what a token is worth.
type state int

const (
	dead      state = iota
	suspended       // until its project is enabled again
	alive
)

// grant is what a token of a user gives in a scope.
type grant struct {
	user    *user
	scope   scope
	project *project // nil: the scope is no project
	roles   []string
}

// grant returns what a token gives now. The roles are those of now, not those of when it was
// issued.
func (d *directory) grant(r *record) (grant, state) {
	u := d.users[r.user]
	if u == nil || !u.enabled || u.fingerprint != r.password {
		return grant{}, dead
	}
	return d.grantTo(u, r.scope)
}

func (d *directory) grantTo(u *user, s scope) (grant, state) {
	g := grant{user: u, scope: s}
	switch s.kind {
	case domainScope:
		g.roles = u.onDomain
	case projectScope:
		g.project, g.roles = d.projects[s.project], u.inProjects[s.project]
		if g.project == nil {
			return g, dead
		}
	case unscoped:
		return g, alive
	}
	switch {
	case len(g.roles) == 0:
		return g, dead
	case g.project != nil && !g.project.enabled:
		return g, suspended
	}
	return g, alive
}

// administrator reports whether the token is one of an administrator: in the role admin, in its
// scope and on the domain. It is not enough to be admin in some project.
func (g grant) administrator() bool {
	return slices.Contains(g.roles, AdminRole) && slices.Contains(g.user.onDomain, AdminRole)
}

// kubernetesUser returns the user of the Kubernetes API. No name has a colon, so none can make
// up a group of another project, or one of the server's own.
func (d *directory) kubernetesUser(g grant) auth.User {
	u := auth.User{
		Name: g.user.name, UID: g.user.ref.id,
		Extra: map[string][]string{extraDomainID: {d.config.domain.id}, extraDomainName: {d.config.domain.name}},
	}
	prefix := "domain:" + d.config.domain.name
	switch g.scope.kind {
	case unscoped:
		return u
	case projectScope:
		prefix = "project:" + g.project.name
		u.Groups = append(u.Groups, prefix)
		u.Extra[extraProjectID], u.Extra[extraProjectName] = []string{g.project.ref.id}, []string{g.project.name}
	}
	u.Extra[extraRoles] = slices.Sorted(slices.Values(g.roles))
	for _, role := range u.Extra[extraRoles] {
		u.Groups = append(u.Groups, prefix+":"+role)
	}
	if g.scope.kind == domainScope && g.administrator() {
		u.Groups = append(u.Groups, auth.SystemPrivilegedGroup)
	}
	return u
}

// identityID returns what the limits of requests know the user by, whatever the token.
func (u *user) identityID() [sha256.Size]byte {
	return sha256.Sum256([]byte("berth iam user\x00" + u.ref.id))
}

// roleRef returns a role, whose id is that of its name.
func (d *directory) roleRef(name string) Ref {
	return Ref{ID: deriveID(d.config.domain.id, "role", name), Name: name}
}

// weakHashes returns the names of the users whose hashes are quick to guess.
func (d *directory) weakHashes() (names []string) {
	for _, u := range d.config.users {
		if u.password.weak() {
			names = append(names, u.name)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
