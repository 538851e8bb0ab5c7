package identity

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/auth/iam"
)

// noSuchToken is for what X-Subject-Token, or the method token, has.
const noSuchToken = "Could not find token, or it has ended."

// named is an id and a name.
type named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type inDomain struct {
	Domain named  `json:"domain"`
	ID     string `json:"id"`
	Name   string `json:"name"`
}

type tokenUser struct {
	inDomain
	PasswordExpires *time.Time `json:"password_expires_at"`
}

// tokenBody is what clients are told of a token.
type tokenBody struct {
	Methods  []string  `json:"methods"`
	User     tokenUser `json:"user"`
	AuditIDs []string  `json:"audit_ids"`
	Expires  string    `json:"expires_at"`
	Issued   string    `json:"issued_at"`
	Domain   *named    `json:"domain,omitempty"`
	Project  *inDomain `json:"project,omitempty"`
	IsDomain *bool     `json:"is_domain,omitempty"` // of a project
	Roles    []named   `json:"roles,omitempty"`
	Catalog  []service `json:"catalog,omitempty"`
}

type service struct {
	Endpoints []endpoint `json:"endpoints"`
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	Name      string     `json:"name"`
}

type endpoint struct {
	ID        string `json:"id"`
	Interface string `json:"interface"`
	RegionID  string `json:"region_id"`
	URL       string `json:"url"`
	Region    string `json:"region"`
}

// Version is the document that tells the version of the API, and where it is.
func (h *Handler) Version(req *http.Request) any {
	return map[string]any{
		"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
		"links":       []any{map[string]string{"rel": "self", "href": h.url(req) + Prefix + "/"}},
		"media-types": []any{map[string]string{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}},
	}
}

// timestamp writes a time with six decimals.
func timestamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000000Z") }

// token returns what a session is, with the catalog unless the query omits it.
func (x *exchange) token(s *iam.Session) any {
	user, domain := s.User(), named(s.Domain())
	body := tokenBody{
		Methods: s.Methods().Names(), User: tokenUser{inDomain: inDomain{domain, user.ID, user.Name}},
		AuditIDs: s.AuditIDs(), Expires: timestamp(s.Expires()), Issued: timestamp(s.Issued()),
	}
	for _, role := range s.Roles() {
		body.Roles = append(body.Roles, named(role))
	}
	if project := s.Project(); project != nil {
		body.Project, body.IsDomain = &inDomain{domain, project.ID, project.Name}, new(bool)
	}
	if s.OnDomain() {
		body.Domain = &domain
	}
	if s.Scoped() && !x.req.URL.Query().Has("nocatalog") {
		body.Catalog = x.catalog(s)
	}
	return map[string]any{"token": body}
}

// catalog has this service alone, which clients look up in it before they revoke a token.
func (x *exchange) catalog(s *iam.Session) []service {
	identity := service{ID: s.EndpointID("identity"), Type: "identity", Name: "berth"}
	for _, name := range []string{"public", "internal", "admin"} {
		identity.Endpoints = append(identity.Endpoints, endpoint{
			ID: s.EndpointID("identity " + name), Interface: name, RegionID: s.Region(), Region: s.Region(), URL: x.base() + Prefix + "/",
		})
	}
	return []service{identity}
}

// subject returns the token that the request is about, nil if it has answered already.
func (x *exchange) subject(action string) *iam.Session {
	secret := x.req.Header.Get("X-Subject-Token")
	if secret == "" {
		x.fail(http.StatusBadRequest, missing("a token", "X-Subject-Token header").Error())
		return nil
	}
	subject, err := x.Service.Session(x.req.Context(), secret)
	switch {
	case err != nil:
		x.failWith(err)
	case subject == nil:
		x.fail(http.StatusNotFound, noSuchToken)
	case !subject.SameUser(x.session) && !x.session.Administrator():
		x.fail(http.StatusForbidden, forbidden+action+".")
	default:
		return subject
	}
	return nil
}

func (x *exchange) showToken() {
	action := "validate_token"
	if x.req.Method == http.MethodHead {
		action = "check_token"
	}
	if subject := x.subject(action); subject != nil {
		x.w.Header().Set("X-Subject-Token", x.req.Header.Get("X-Subject-Token"))
		x.write(http.StatusOK, x.token(subject))
	}
}

func (x *exchange) revokeToken() {
	subject := x.subject("revoke_token")
	if subject == nil {
		return
	}
	switch err := x.Service.Revoke(x.req.Context(), subject); {
	case err == nil:
		x.w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, iam.ErrNotFound):
		x.fail(http.StatusNotFound, noSuchToken)
	default:
		x.failWith(err)
	}
}

func (x *exchange) showCatalog() {
	if !x.session.Scoped() {
		x.fail(http.StatusForbidden, forbidden+"get_auth_catalog.")
		return
	}
	x.write(http.StatusOK, map[string]any{"catalog": x.catalog(x.session), "links": map[string]string{"self": x.self()}})
}

// self is the URL of the request.
func (x *exchange) self() string { return x.base() + x.req.URL.RequestURI() }

func (x *exchange) project(p iam.Project) any {
	domain := x.session.Domain()
	return map[string]any{
		"id": p.ID, "name": p.Name, "domain_id": domain.ID, "parent_id": domain.ID, "description": "",
		"enabled": p.Enabled, "is_domain": false, "tags": []any{}, "options": map[string]any{},
		"links": map[string]string{"self": x.base() + Prefix + "/projects/" + p.ID},
	}
}

// list answers with a list under the name, which is never one page of several.
func (x *exchange) list(name string, items []any) {
	x.write(http.StatusOK, map[string]any{
		name: items, "links": map[string]any{"next": nil, "previous": nil, "self": x.self()},
	})
}

// writeProjects answers with those of the projects that the query selects.
func (x *exchange) writeProjects(projects []iam.Project) {
	query, items := x.req.URL.Query(), []any{}
	wanted := func(key, value string) bool { return !query.Has(key) || query.Get(key) == value }
	for _, p := range projects {
		enabled := !query.Has("enabled") || isTrue(query.Get("enabled")) == p.Enabled
		if wanted("name", p.Name) && wanted("domain_id", x.session.Domain().ID) && enabled {
			items = append(items, x.project(p))
		}
	}
	x.list("projects", items)
}

// isTrue reads a query's boolean as Keystone does: what is not false is true.
func isTrue(text string) bool {
	value, err := strconv.ParseBool(strings.ToLower(text))
	return err != nil || value
}

func (x *exchange) ownProjects() {
	projects, _ := x.session.Projects(x.session.User().ID)
	x.writeProjects(projects)
}

// listProjects shows all projects to administrators, and others their own: as Huawei's service
// does, whose SDK looks up its project by name.
func (x *exchange) listProjects() {
	if x.session.Administrator() {
		x.writeProjects(x.session.AllProjects())
		return
	}
	x.ownProjects()
}

func (x *exchange) ownDomains() {
	items := []any{}
	if x.session.HasDomainRole() {
		domain := x.session.Domain()
		items = append(items, map[string]any{
			"id": domain.ID, "name": domain.Name, "description": "", "enabled": true, "tags": []any{}, "options": map[string]any{},
			"links": map[string]string{"self": x.base() + Prefix + "/domains/" + domain.ID},
		})
	}
	x.list("domains", items)
}

// showProject shows one of the user's projects, to administrators any one. Others are not told
// whether there is a project of that id, which can be computed of a name that is guessed: they get
// 404 for what is no id alone.
func (x *exchange) showProject(id string) {
	switch p, member := x.session.FindProject(id); {
	case !member && !x.session.Administrator() && iam.IsID(id):
		x.fail(http.StatusForbidden, forbidden+"get_project.")
	case p == nil:
		x.fail(http.StatusNotFound, "Could not find project.")
	default:
		x.write(http.StatusOK, map[string]any{"project": x.project(*p)})
	}
}

// mayAskAbout answers, and returns false, if a user may not be shown to the one who asks.
func (x *exchange) mayAskAbout(userID, action string) bool {
	switch {
	case userID == x.session.User().ID:
		return true
	case !x.session.Administrator():
		x.fail(http.StatusForbidden, forbidden+action+".")
	case x.session.FindUser(userID) == nil:
		x.fail(http.StatusNotFound, "Could not find user.")
	default:
		return true
	}
	return false
}

func (x *exchange) showUser(id string) {
	if !x.mayAskAbout(id, "get_user") {
		return
	}
	user := x.session.FindUser(id)
	x.write(http.StatusOK, map[string]any{"user": map[string]any{
		"id": user.ID, "name": user.Name, "domain_id": x.session.Domain().ID, "enabled": user.Enabled,
		"password_expires_at": nil, "options": map[string]any{},
		"links": map[string]string{"self": x.base() + Prefix + "/users/" + user.ID},
	}})
}

func (x *exchange) userProjects(id string) {
	if !x.mayAskAbout(id, "list_user_projects") {
		return
	}
	projects, _ := x.session.Projects(id)
	x.writeProjects(projects)
}
