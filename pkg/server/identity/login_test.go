package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/auth/iam"
)

// in returns the body of a log-in by password, with a scope if it is not "".
func in(scope string) string {
	if scope != "" {
		scope = `,"scope":` + scope
	}
	return `{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"1","password":"hunter2"}}}` + scope + `}}`
}

func user(user string) string {
	return `{"auth":{"identity":{"methods":["password"],"password":{"user":` + user + `}}}}`
}

func TestParseLogin(t *testing.T) {
	token := "t"
	byID := &iam.PasswordLogin{UserID: "1", Password: "hunter2"}
	for _, tt := range []struct {
		name, body string
		want       iam.Login
	}{
		{"id", in(""), iam.Login{Password: byID}},
		{"name and domain", user(`{"name":"a","domain":{"name":"D"},"password":"p"}`), iam.Login{
			Password: &iam.PasswordLogin{UserName: "a", Domain: iam.DomainRef{Name: "D"}, Password: "p"},
		}},
		{"name and domain id, and what nobody knows", user(`{"name":"a","domain":{"id":"d","x":1},"password":"p","x":[]}`), iam.Login{
			Password: &iam.PasswordLogin{UserName: "a", Domain: iam.DomainRef{ID: "d"}, Password: "p"},
		}},
		{"no password", user(`{"id":"1"}`), iam.Login{Password: &iam.PasswordLogin{UserID: "1"}}},
		{"token", `{"auth":{"identity":{"methods":["token"],"token":{"id":"t"},"password":{}}}}`, iam.Login{Token: &token}},
		{"both", `{"auth":{"identity":{"methods":["token","password","token"],"token":{"id":"t"},"password":{"user":{"id":"1","password":"hunter2"}}}}}`, iam.Login{Token: &token, Password: byID}},
		{"no methods", `{"auth":{"identity":{"methods":[]}}}`, iam.Login{}},
		{"null scope", in("null"), iam.Login{Password: byID}},
		{"unscoped", in(`{"unscoped":{}}`), iam.Login{Password: byID}},
		{"unscoped in a word", in(`"unscoped"`), iam.Login{Password: byID}},
		{"project by id", in(`{"project":{"id":"2"}}`), iam.Login{Password: byID, Project: &iam.ProjectRef{ID: "2"}}},
		{"project by name and domain", in(`{"project":{"name":"p","domain":{"id":"d"}}}`), iam.Login{Password: byID, Project: &iam.ProjectRef{Name: "p", Domain: iam.DomainRef{ID: "d"}}}},
		{"project by name alone", in(`{"project":{"name":"p"}}`), iam.Login{Password: byID, Project: &iam.ProjectRef{Name: "p"}}},
		{"domain", in(`{"domain":{"name":"D"}}`), iam.Login{Password: byID, Domain: &iam.DomainRef{Name: "D"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseLogin([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// badLogins are bodies and what the answer says; "" is a 401 without a word.
var badLogins = []struct{ name, body, want string }{
	{"nothing", "", "find auth in request body"},
	{"bad JSON", `{"auth":`, "valid JSON"},
	{"bytes", "\x00\xff", "valid JSON"},
	{"a list", `[]`, "valid JSON"},
	{"a string", `"auth"`, "valid JSON"},
	{"null", `null`, "find auth in request body"},
	{"two values", `{} {}`, "valid JSON"},
	{"another case", `{"Auth":{}}`, "find auth in request body"},
	{"repeated", `{"auth":{},"auth":{}}`, "valid JSON"},
	{"no identity", `{"auth":{}}`, "find identity in auth"},
	{"identity is a list", `{"auth":{"identity":[]}}`, "valid JSON"},
	{"no methods", `{"auth":{"identity":{}}}`, "find methods in identity"},
	{"methods are a string", `{"auth":{"identity":{"methods":"password"}}}`, "valid JSON"},
	{"unknown method", `{"auth":{"identity":{"methods":["magic"],"magic":{}}}}`, ""},
	{"unknown method beside", `{"auth":{"identity":{"methods":["token","magic"],"token":{"id":"t"}}}}`, ""},
	{"unknown method, and malformed", `{"auth":{"identity":{"methods":["magic","token"]}}}`, "find token in identity"},
	{"no data", `{"auth":{"identity":{"methods":["password"]}}}`, "find password in identity"},
	{"null data", `{"auth":{"identity":{"methods":["password"],"password":null}}}`, "find password in identity"},
	{"no user", `{"auth":{"identity":{"methods":["password"],"password":{}}}}`, "find password in identity"},
	{"no token", `{"auth":{"identity":{"methods":["token"],"token":{}}}}`, "find token in identity"},
	{"nobody", user(`{"password":"hunter2"}`), "find id or name in user"},
	{"no domain", user(`{"name":"a","password":"hunter2"}`), "find domain in user"},
	{"empty domain", user(`{"name":"a","domain":{},"password":"hunter2"}`), "find id or name in domain"},
	{"password is a number", user(`{"id":"1","password":123456}`), "valid JSON"},
	{"id is a number", user(`{"id":1,"password":"hunter2"}`), "valid JSON"},
	{"no scope in it", in(`{}`), "exactly one of project"},
	{"two scopes", in(`{"project":{"id":"1"},"domain":{"id":"2"}}`), "exactly one of project"},
	{"scope is a list", in(`[]`), "a scope of the right types"},
	{"scope is a word", in(`"project"`), "a scope of the right types"},
	{"project without a name", in(`{"project":{"domain":{"id":"1"}}}`), "find id or name in project"},
	{"project with an empty domain", in(`{"project":{"name":"p","domain":{}}}`), "find id or name in domain"},
	{"domain without a name", in(`{"domain":{}}`), "find id or name in domain"},
	{"project is a string", in(`{"project":"p"}`), "a scope of the right types"},
	{"system", in(`{"system":{"all":true}}`), ""},
	{"trust", in(`{"OS-TRUST:trust":{"id":"1"}}`), ""},
}

func TestParseLoginRefuses(t *testing.T) {
	for _, tt := range badLogins {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseLogin([]byte(tt.body))
			if tt.want == "" {
				if !errors.Is(err, iam.ErrUnauthorized) {
					t.Errorf("error = %v", err)
				}
				return
			}
			var bad *malformed
			if !errors.As(err, &bad) || !strings.Contains(bad.reason, tt.want) {
				t.Fatalf("error = %v, want %s", err, tt.want)
			}
			if strings.Contains(bad.reason, "hunter2") || strings.Contains(bad.reason, "123456") {
				t.Errorf("the answer has the password: %s", bad.reason)
			}
		})
	}
}

// No body crashes the server, and what is accepted names somebody or has a token.
func FuzzParseLogin(f *testing.F) {
	for _, tt := range badLogins {
		f.Add([]byte(tt.body))
	}
	f.Add([]byte(in(`{"project":{"name":"p","domain":{"id":"d"}}}`)))
	f.Add([]byte(`{"auth":{"identity":{"methods":["token"],"token":{"id":"t"}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		login, err := parseLogin(body)
		if err != nil {
			if bad := (*malformed)(nil); !errors.As(err, &bad) && !errors.Is(err, iam.ErrUnauthorized) {
				t.Fatal(err)
			}
			return
		}
		if p := login.Password; p != nil && p.UserID == "" && (p.UserName == "" || p.Domain == (iam.DomainRef{})) {
			t.Fatalf("nobody is named: %+v", p)
		}
		if login.Project != nil && login.Domain != nil {
			t.Fatal("two scopes")
		}
	})
}
