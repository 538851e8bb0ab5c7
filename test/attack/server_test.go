package attack

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/berth-project/berth/test/harness"
)

const (
	adminToken  = "administrator-0123456789abcdef"
	victimToken = "victim-0123456789abcdef"
	victims     = "victims" // the victim's namespace
	crowd       = "crowd"   // a namespace with large objects that every attacker may read
	patience    = time.Minute
	// newcomers is how many tokens of the victim nobody has used yet.
	newcomers = 1000
	// attackers is more than a group has attacks.
	attackers = 50
)

// server is a server with its default settings and many users.
type server struct {
	*harness.Server
	tokens  string       // path of the token file
	crowded bool         // whether the namespace crowd has been filled
	came    atomic.Int64 // how many of the newcomers' tokens are used
}

// startServer starts a server that knows an administrator, a victim, attackers, and more users,
// each a line of the token file.
func startServer(t *testing.T, binary string, users ...string) *server {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("measures with Linux's /proc")
	}
	lines := []string{
		adminToken + `,root,0,"system:masters"`,
		victimToken + `,victim,1,"team-a,team-b"`,
	}
	for i := range attackers {
		lines = append(lines, fmt.Sprintf("%s,attacker-%d,%d", attackerToken(i), i, i+2))
	}
	for i := range newcomers {
		lines = append(lines, fmt.Sprintf("%s,victim,1", newcomerToken(int64(i))))
	}
	s := &server{tokens: filepath.Join(t.TempDir(), "tokens.csv")}
	harness.WriteFile(t, s.tokens, strings.Join(append(lines, users...), "\n")+"\n")
	s.Server = harness.Run(t, binary, "--token-auth-file="+s.tokens, "--authorization-mode=AlwaysAllow", "--log-format=json",
		"--iam-config="+filepath.Join(harness.Root(), "examples", "iam.yaml"))
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+victims+`"}}`)
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, endpointsIn(victims), smallObject("base"))
	return s
}

func newcomerToken(i int64) string { return fmt.Sprintf("newcomer-%06d-0123456789abcdef", i) }

func attackerToken(i int) string { return fmt.Sprintf("attacker-%06d-0123456789abcdef", i) }

// admin sends a request as the administrator and returns the answer.
func (s *server) admin(ctx context.Context, method, path, body string) (code int, answer string, err error) {
	code, data, err := exchange(ctx, s.Client, s.URL, adminToken, method, path, body)
	return code, string(data), err
}

func (s *server) mustAdmin(t *testing.T, want int, method, path, body string) string {
	t.Helper()
	code, answer, err := s.admin(t.Context(), method, path, body)
	if err != nil || code != want {
		t.Fatalf("%s %s: got %d %.300s %v, want %d", method, path, code, answer, err, want)
	}
	return answer
}

// clean deletes what an attack has stored, and waits until it is gone.
func (s *server) clean(t *testing.T, namespace string) {
	t.Helper()
	// Finalizers would keep the object. Most attacks leave none, or not even the object.
	_, _, _ = exchange(t.Context(), s.Client, s.URL, adminToken, http.MethodPatch, endpointsIn(namespace)+"/object",
		`{"metadata":{"finalizers":null}}`, "Content-Type", "application/"+mergePatch)
	path := "/api/v1/namespaces/" + namespace
	s.eventually(t, "the attacker's namespace is gone", func() bool {
		code, _, err := s.admin(t.Context(), http.MethodDelete, path, "")
		return err == nil && code == http.StatusNotFound
	})
}

// eventually waits until done says so.
func (s *server) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) { return done(), nil })
	if err != nil {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// fillCrowd makes a namespace of about 26 MB in ten objects, once.
func (s *server) fillCrowd(t *testing.T) {
	t.Helper()
	if s.crowded {
		return
	}
	s.crowded = true
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+crowd+`"}}`)
	for i := range 10 {
		s.mustAdmin(t, http.StatusCreated, http.MethodPost, endpointsIn(crowd), objectOf("large-"+strconv.Itoa(i), 26_000))
	}
}

var kilobytes = regexp.MustCompile(`\d+`)

// memory returns a line of the process's status, such as VmRSS or VmHWM, in bytes.
func (s *server) memory(t *testing.T, line string) int64 {
	t.Helper()
	for text := range strings.Lines(harness.ReadFile(t, fmt.Sprintf("/proc/%d/status", s.PID))) {
		if strings.HasPrefix(text, line+":") {
			kb, err := strconv.ParseInt(kilobytes.FindString(text), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("the server's process has no %s: it has ended", line)
	return 0
}

// resetPeak makes VmHWM what the process has now.
func (s *server) resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.PID), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// settle waits until the server's memory is at most the limit, but not longer than recovery,
// and returns what it is then.
func (s *server) settle(t *testing.T, limit int64) (resident int64) {
	t.Helper()
	// That it takes longer is for the caller to judge.
	_ = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, recovery, true, func(context.Context) (bool, error) {
		resident = s.memory(t, "VmRSS")
		return resident <= limit, nil
	})
	return resident
}

// metric returns the value of a metric without labels.
func (s *server) metric(t *testing.T, name string) float64 {
	t.Helper()
	for line := range strings.Lines(s.mustAdmin(t, http.StatusOK, http.MethodGet, "/metrics", "")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func endpointsIn(namespace string) string { return "/api/v1/namespaces/" + namespace + "/endpoints" }

func smallObject(name string) string { return objectOf(name, 1) }

// objectOf is an object with that many addresses, about 100 bytes each.
func objectOf(name string, addresses int) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"metadata":{"name":%q},"subsets":[{"addresses":[`, name)
	for i := range addresses {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ip":"10.%d.%d.%d","targetRef":{"kind":"Pod","namespace":"crowd","name":"web-%010d","uid":"%08x"}}`, i>>16&255, i>>8&255, i&255, i, i*2654435761)
	}
	b.WriteString(`],"ports":[{"port":80}]}]}`)
	return b.String()
}
