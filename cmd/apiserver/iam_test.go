package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
	"github.com/berth-project/berth/test/harness"
)

// iamFile has one user, with a hash.
func iamFile(hash string) string {
	return `apiVersion: berth/v1alpha1
kind: IAMConfiguration
projects:
- {name: team-a, namespaces: [default]}
users:
- name: ann
  passwordHash: ` + hash + `
  roles: [{project: team-a, roles: [member]}]
`
}

const iamPassword = "correct horse"

// makeHash returns what the command prints for a password.
func makeHash(t *testing.T, input string) (hash string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := commands.NewIAM()
	cmd.SetArgs([]string{"password"})
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage = true
	err = cmd.ExecuteContext(t.Context())
	return strings.TrimSuffix(out.String(), "\n"), err
}

func TestIAMPasswordRefuses(t *testing.T) {
	for name, input := range map[string]string{"nothing": "", "an empty line": "\n", "too long": strings.Repeat("x", 73) + "\n"} {
		if hash, err := makeHash(t, input); err == nil || hash != "" {
			t.Errorf("%s: %q, %v", name, hash, err)
		}
	}
}

// logIn returns the token that ann gets, and the status.
func (s *runningServer) logIn(t *testing.T, client *http.Client, password string) (token string, code int) {
	t.Helper()
	const body = `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"ann","domain":{"name":"Default"},"password":"PASSWORD"}}},"scope":{"project":{"name":"team-a"}}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v3/auth/tokens?nocatalog=true", strings.NewReader(strings.Replace(body, "PASSWORD", password, 1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json;charset=utf8")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Subject-Token"), resp.StatusCode
}

// A hash that the command has printed lets a user log in. The file is loaded again when it changes;
// a faulty version is refused, and says where.
func TestRunIAM(t *testing.T) {
	hash, err := makeHash(t, iamPassword+"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "iam.yaml")
	harness.WriteFile(t, path, iamFile(hash))
	s := runServer(t, func(c *config) { c.IAMConfig = path })
	client := caller(t, s.DataDir.PKI().CACert())
	token, code := s.logIn(t, client, iamPassword)
	if code != http.StatusCreated {
		t.Fatalf("the log-in gets %d", code)
	}
	// Its groups are what roles are bound to.
	if code, body := call(t, client, "POST", s.url+endpointsPath, token, exampleBody); code != http.StatusForbidden {
		t.Errorf("without a role the documented call gets %d: %s", code, body)
	}
	const binding = `{"metadata":{"name":"team-a"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"},
		"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"project:team-a:member"}]}`
	bindings := s.url + "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
	if code, body := call(t, client, "POST", bindings, strings.TrimSpace(harness.ReadFile(t, s.DataDir.Token())), binding); code != http.StatusCreated {
		t.Fatalf("the binding gets %d: %s", code, body)
	}
	eventually(t, func() error { // a binding counts a moment after it is written
		if code, body := call(t, client, "POST", s.url+endpointsPath, token, exampleBody); code != http.StatusCreated {
			return fmt.Errorf("the documented call gets %d: %s", code, body)
		}
		return nil
	})

	replace(t, path, iamFile(hash)+"usres: []\n")
	s.stderr.Await(t, `"error":"IAM configuration: `+path+`: line 9: usres: is not a known field","files":"iam-config",.*the new version is refused, the old one stays in use`, s.ended)
	s.expectCode(t, client, token, http.StatusOK)
	replace(t, path, iamFile("$2a$04$yQ90hT8xxpUy2muKm7lFj.YjHYatfc.r582izbkKC8FRBhHthqhiq"))
	s.expectCode(t, client, token, http.StatusUnauthorized)
	s.stderr.Await(t, `"first":\["ann"\],.*password hashes are quick to guess`, s.ended)
	if _, code := s.logIn(t, client, iamPassword); code != http.StatusUnauthorized {
		t.Errorf("the old password gets %d", code)
	}
	s.stderr.Await(t, `"login":"user \\"ann\\": wrong password","user":"",.*"code":401`, s.ended)
	if log := s.stderr.String() + s.stdout.String(); strings.Contains(log, token) || strings.Contains(log, iamPassword) || strings.Contains(log, hash) {
		t.Error("the output has a secret")
	}
}

func TestRunRefusesAFaultyIAMFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "iam.yaml")
	harness.WriteFile(t, path, iamFile("secret"))
	var stderr bytes.Buffer
	status := execute([]string{"--iam-config=" + path, "--data-dir=" + filepath.Join(t.TempDir(), "data"), "--secure-port=0"}, io.Discard, &stderr)
	want := "apiserver: --iam-config: IAM configuration: " + path + ": line 7: users[0].passwordHash: must be a hash"
	if status != 1 || !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("status %d, %s\nwant %s", status, &stderr, want)
	}
}
