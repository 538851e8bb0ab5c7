package iam

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// runCommand runs openstack as alice in team-a, unless the arguments say something else, and
// returns what it prints.
func runCommand(t *testing.T, environment []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openstack", args...)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "OS_CACERT=" + shared.caFile, "OS_IDENTITY_API_VERSION=3",
	}, environment...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// The openstack command of Debian's python3-openstackclient.
func TestOpenStackCommand(t *testing.T) {
	if _, err := exec.LookPath("openstack"); err != nil {
		t.Skip("the openstack command is not installed (python3-openstackclient)")
	}
	byPassword := []string{
		"OS_AUTH_URL=" + shared.url + "/v3", "OS_USERNAME=alice", "OS_PASSWORD=alice-secret-1", "OS_USER_DOMAIN_NAME=Default",
		"OS_PROJECT_NAME=team-a", "OS_PROJECT_DOMAIN_NAME=Default",
	}
	must := func(environment []string, args ...string) string {
		t.Helper()
		out, err := runCommand(t, environment, args...)
		if err != nil {
			t.Fatalf("openstack %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	var issued struct {
		ID      string `json:"id"`
		Project string `json:"project_id"`
		User    string `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(must(byPassword, "token", "issue", "-f", "json")), &issued); err != nil || issued.ID == "" {
		t.Fatalf("no token was issued: %v", err)
	}
	byToken := []string{"OS_AUTH_TYPE=v3token", "OS_AUTH_URL=" + shared.url + "/v3", "OS_TOKEN=" + issued.ID}
	exchanged := []string{"OS_AUTH_TYPE=token", "OS_AUTH_URL=" + shared.url, "OS_TOKEN=" + issued.ID, "OS_PROJECT_NAME=team-b", "OS_PROJECT_DOMAIN_NAME=Default"}
	for _, tt := range []struct {
		environment []string
		args, want  string
	}{
		{byPassword, "catalog list -f value -c Type", "identity"},
		{byPassword, "catalog show identity -f value -c type", "identity"},
		{byPassword, "project list -f value -c Name", "team-a\nteam-b\nteam-off"},
		{byPassword, "project show team-b -f value -c name", "team-b"},
		{byPassword, "project show team-a -f value -c id", issued.Project},
		{byToken, "project list -f value -c Name", "team-a\nteam-b\nteam-off"},
		{exchanged, "token issue -f value -c user_id", issued.User},
	} {
		if got := must(tt.environment, strings.Fields(tt.args)...); got != tt.want {
			t.Errorf("openstack %s: %q, want %q", tt.args, got, tt.want)
		}
	}
	must(byPassword, "token", "revoke", issued.ID)
	if out, err := runCommand(t, byToken, "project", "list"); err == nil {
		t.Errorf("a revoked token is good: %s", out)
	}
}
