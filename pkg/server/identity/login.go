package identity

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/berth-project/berth/pkg/auth/iam"
)

// maxLoginBytes leaves room for tokens of other services, of some 16 KB, that clients send here.
const maxLoginBytes = 64 << 10

// credentials is the body of a log-in. Pointers tell what is absent; unknown fields are ignored.
type credentials struct {
	Auth *struct {
		Identity *struct {
			Methods  *[]string `json:"methods"`
			Password *struct {
				User *struct {
					ID       string     `json:"id"`
					Name     string     `json:"name"`
					Domain   *domainRef `json:"domain"`
					Password string     `json:"password"`
				} `json:"user"`
			} `json:"password"`
			Token *struct {
				ID *string `json:"id"`
			} `json:"token"`
		} `json:"identity"`
		Scope jsontext.Value `json:"scope"`
	} `json:"auth"`
}

type domainRef struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// malformed is why a body is not a log-in: a 400.
type malformed struct{ reason string }

func (e *malformed) Error() string { return e.reason }

func missing(what, where string) error {
	return &malformed{fmt.Sprintf("Expecting to find %s in %s. The client is assumed to be in error.", what, where)}
}

// logIn issues a token. A token that the request carries, or a signature, does not count: clients
// send dead ones.
func (x *exchange) logIn() {
	if wait := x.Limiter.AnonymousWait(x.began, x.client); wait > 0 {
		x.tooManyFailures(wait)
		return
	}
	mediaType, _, _ := strings.Cut(x.req.Header.Get("Content-Type"), ";")
	if mediaType = strings.TrimSpace(mediaType); mediaType != "" && !strings.EqualFold(mediaType, "application/json") {
		x.refuse(http.StatusBadRequest, missing("application/json", "Content-Type header").Error())
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.req.Body, maxLoginBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		x.refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body of the request has more than %d bytes.", maxLoginBytes))
		return
	} else if err != nil {
		x.refuse(http.StatusBadRequest, "The body of the request could not be read, or came too slowly.")
		return
	}
	login, err := parseLogin(body)
	if bad := (*malformed)(nil); errors.As(err, &bad) {
		x.refuse(http.StatusBadRequest, bad.reason)
		return
	}
	var secret string
	if err == nil {
		secret, x.session, err = x.Service.LogIn(x.req.Context(), x.client, login)
	}
	if err != nil {
		x.failWith(err)
		return
	}
	x.outcome.Identity = x.session.Identity
	x.w.Header().Set("X-Subject-Token", secret)
	x.write(http.StatusCreated, x.token(x.session))
}

// parseLogin reads the body of a log-in. Its errors are *malformed, and iam.ErrUnsupported for
// methods that there are not. They never have a part of the body.
func parseLogin(body []byte) (login iam.Login, err error) {
	var c credentials
	switch {
	case len(body) == 0:
		return login, missing("auth", "request body")
	case json.Unmarshal(body, &c) != nil:
		return login, &malformed{"Expecting to find valid JSON, of the right types, in request body. The client is assumed to be in error."}
	case c.Auth == nil:
		return login, missing("auth", "request body")
	case c.Auth.Identity == nil:
		return login, missing("identity", "auth")
	case c.Auth.Identity.Methods == nil:
		return login, missing("methods", "identity")
	}
	identity := c.Auth.Identity
	for _, method := range *identity.Methods {
		switch method {
		case "password":
			if identity.Password == nil || identity.Password.User == nil {
				return login, missing("password", "identity")
			}
			user := identity.Password.User
			login.Password = &iam.PasswordLogin{UserID: user.ID, UserName: user.Name, Password: user.Password}
			switch {
			case user.ID != "":
			case user.Name == "":
				return login, missing("id or name", "user")
			case user.Domain == nil:
				return login, missing("domain", "user")
			default:
				if login.Password.Domain, err = user.Domain.ref(); err != nil {
					return login, err
				}
			}
		case "token":
			if identity.Token == nil || identity.Token.ID == nil {
				return login, missing("token", "identity")
			}
			login.Token = identity.Token.ID
		default:
			err = iam.ErrUnsupported // unless the body is malformed besides
		}
	}
	if scopeErr := parseScope(c.Auth.Scope, &login); scopeErr != nil {
		return login, scopeErr
	}
	return login, err
}

func (r *domainRef) ref() (iam.DomainRef, error) {
	if r.ID == "" && r.Name == "" {
		return iam.DomainRef{}, missing("id or name", "domain")
	}
	return iam.DomainRef{ID: r.ID, Name: r.Name}, nil
}

// scope is what a log-in may ask for, at most one of it.
type scope struct {
	Project *struct {
		ID     string     `json:"id"`
		Name   string     `json:"name"`
		Domain *domainRef `json:"domain"`
	} `json:"project"`
	Domain   *domainRef     `json:"domain"`
	Unscoped jsontext.Value `json:"unscoped"`
	// What nobody has a role in here.
	System jsontext.Value `json:"system"`
	Trust  jsontext.Value `json:"OS-TRUST:trust"`
}

// parseScope reads the scope. null is none, as Huawei's SDK sends it; so is the string that
// Keystone takes.
func parseScope(value jsontext.Value, login *iam.Login) error {
	if value == nil || value.Kind() == 'n' || string(value) == `"unscoped"` {
		return nil
	}
	var s scope
	if json.Unmarshal(value, &s) != nil {
		return &malformed{"Expecting to find a scope of the right types in auth. The client is assumed to be in error."}
	}
	count := 0
	for _, there := range []bool{s.Project != nil, s.Domain != nil, s.Unscoped != nil, s.System != nil, s.Trust != nil} {
		if there {
			count++
		}
	}
	switch {
	case count != 1:
		return missing("exactly one of project, domain and unscoped", "scope")
	case s.System != nil, s.Trust != nil:
		return iam.ErrUnsupported
	case s.Domain != nil:
		domain, err := s.Domain.ref()
		login.Domain = &domain
		return err
	case s.Project == nil:
		return nil
	case s.Project.ID == "" && s.Project.Name == "":
		return missing("id or name", "project")
	}
	login.Project = &iam.ProjectRef{ID: s.Project.ID, Name: s.Project.Name}
	if s.Project.ID != "" || s.Project.Domain == nil { // without a domain it is the user's, as with Huawei
		return nil
	}
	var err error
	login.Project.Domain, err = s.Project.Domain.ref()
	return err
}
