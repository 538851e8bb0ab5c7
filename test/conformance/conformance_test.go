package conformance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

// TestConformance replays every case against a server that it starts, or against the one
// that the environment names:
//
//	BERTH_SERVER=https://127.0.0.1:6443 BERTH_TOKEN=… BERTH_CACERT=ca.crt go test -count 1 ./test/conformance
//
// The token's user needs every right, and the server must know the tokens of cases/tokens.csv,
// under RBAC. Without BERTH_CACERT the system's CAs are trusted.
func TestConformance(t *testing.T) {
	files, err := filepath.Glob("cases/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no cases (error: %v)", err)
	}
	tokens := readTokens(t)
	server := serverUnderTest(t, tokens)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			replayCase(t, server, tokens, file)
		})
	}
}

// patience is how long what happens eventually may take.
const patience = 10 * time.Second

func serverUnderTest(t *testing.T, tokens map[string]string) *harness.Server {
	t.Helper()
	url, token := os.Getenv("BERTH_SERVER"), os.Getenv("BERTH_TOKEN")
	if url == "" {
		file, err := filepath.Abs(tokenFile)
		if err != nil {
			t.Fatal(err)
		}
		server := harness.Run(t, harness.BuildAsTest(t), "--token-auth-file="+file)
		server.Token = tokens["admin"]
		return server
	}
	client, err := harness.NewClient(os.Getenv("BERTH_CACERT"))
	if err != nil {
		t.Fatal(err)
	}
	return &harness.Server{URL: strings.TrimSuffix(url, "/"), Token: token, Client: client}
}

// tokenFile has the users of the cases. admin may do everything.
const tokenFile = "cases/tokens.csv"

// readTokens returns the tokens by user.
func readTokens(t *testing.T) map[string]string {
	t.Helper()
	tokens := map[string]string{}
	for line := range strings.Lines(harness.ReadFile(t, tokenFile)) {
		columns := strings.Split(line, ",")
		tokens[columns[1]] = columns[0]
	}
	return tokens
}

func replayCase(t *testing.T, server *harness.Server, tokens map[string]string, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	golden := readGolden(t, strings.TrimSuffix(file, ".http")+".golden.json")
	if len(golden) != len(steps) {
		t.Fatalf("%s has %d steps and %d expected answers", file, len(steps), len(golden))
	}

	r, err := newRunner(t.Context(), server, tokens, strings.ToLower(rand.Text()[:8]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	var running sync.WaitGroup
	defer running.Wait()
	check := func(i int, got answer, err error) {
		switch s := steps[i]; {
		case err != nil:
			t.Errorf("%s:%d %s: %v", file, s.Line, s.Title, err)
		case !cmp.Equal(golden[i], got):
			t.Errorf("%s:%d %s: %s %s (-want +got)\n%s", file, s.Line, s.Title, s.Method, s.Path, cmp.Diff(golden[i], got))
		}
	}
	for i, s := range steps {
		if s.Background {
			finish, err := r.begin(t.Context(), s)
			if err != nil {
				t.Fatalf("%s:%d %s: %v", file, s.Line, s.Title, err)
			}
			running.Go(func() {
				got, err := finish()
				check(i, got, err)
			})
			continue
		}
		got, err := r.replay(t.Context(), s)
		for began := time.Now(); s.Eventually && err == nil && !cmp.Equal(golden[i], got) && time.Since(began) < patience; {
			got, err = r.replay(t.Context(), s)
		}
		if check(i, got, err); err != nil {
			return // later steps build on it
		}
	}
}

func readGolden(t *testing.T, file string) []answer {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var golden []answer
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for i := range golden {
		maskMore(golden[i].Body)
	}
	return golden
}
