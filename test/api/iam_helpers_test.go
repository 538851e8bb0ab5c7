package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/test/apitest"
)

// iamFile has users with the password s3cr3t-pw.
const iamFile = `apiVersion: berth/v1alpha1
kind: IAMConfiguration
lockout: {attempts: 3}
projects:
- {name: team-a, namespaces: [default]}
users:
- name: root
  passwordHash: ` + iamHash + `
  roles: [{domain: true, roles: [admin]}]
- name: ann
  passwordHash: ` + iamHash + `
  roles: [{project: team-a, roles: [member]}]
- name: bea
  passwordHash: ` + iamHash + `
  roles: [{project: team-a, roles: [reader]}]
`

const (
	iamPassword = secret + "-pw"
	iamHash     = "$2a$04$dB/6HNDxROkEbaS9VuG9K.e/GnMzEuTVRqAhQmiW8TzuBVnEBXxzG"
	otherHash   = "$2a$04$yQ90hT8xxpUy2muKm7lFj.YjHYatfc.r582izbkKC8FRBhHthqhiq" // of another password
)

// iamServer is a server with a token service.
type iamServer struct {
	*apitest.Server
	t *testing.T
}

func startIAM(t *testing.T, cfg apitest.Config) *iamServer {
	t.Helper()
	cfg.Logger = zerolog.New(&logs)
	if cfg.IAM == "" {
		cfg.IAM = iamFile
	}
	s, err := apitest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &iamServer{s, t}
}

// answer is what a request got, its body read.
type iamAnswer struct {
	code   int
	header http.Header
	body   string
}

func (s *iamServer) send(method, path, body string, headers ...string) iamAnswer {
	s.t.Helper()
	resp := s.open(method, path, body, headers...)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return iamAnswer{resp.StatusCode, resp.Header, string(data)}
}

func (s *iamServer) open(method, path, body string, headers ...string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

func loginBody(user, password, scope string) string {
	return fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"domain":{"id":"default"},"password":%q}}},"scope":%s}}`, user, password, scope)
}

const (
	teamA    = `{"project":{"name":"team-a"}}`
	onDomain = `{"domain":{"id":"default"}}`
)

func (s *iamServer) logIn(user, scope string) string {
	s.t.Helper()
	a := s.send("POST", "/v3/auth/tokens", loginBody(user, iamPassword, scope), "Content-Type", "application/json")
	if a.code != http.StatusCreated {
		s.t.Fatalf("%d %s", a.code, a.body)
	}
	return a.header.Get("X-Subject-Token")
}
