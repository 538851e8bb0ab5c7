package conformance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/test/harness"
)

// TestConformance replays every case against a server that it starts, or against the one
// that the environment names:
//
//	BERTH_SERVER=https://127.0.0.1:6443 BERTH_TOKEN=… BERTH_CACERT=ca.crt go test -count 1 ./test/conformance
//
// The token's user needs every right. Without BERTH_CACERT the system's CAs are trusted.
func TestConformance(t *testing.T) {
	files, err := filepath.Glob("cases/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no cases (error: %v)", err)
	}
	server := serverUnderTest(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			replayCase(t, server, file)
		})
	}
}

func serverUnderTest(t *testing.T) *harness.Server {
	t.Helper()
	url, token := os.Getenv("BERTH_SERVER"), os.Getenv("BERTH_TOKEN")
	if url == "" {
		return harness.Start(t)
	}
	client, err := harness.NewClient(os.Getenv("BERTH_CACERT"))
	if err != nil {
		t.Fatal(err)
	}
	return &harness.Server{URL: strings.TrimSuffix(url, "/"), Token: token, Client: client}
}

func replayCase(t *testing.T, server *harness.Server, file string) {
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

	r, err := newRunner(t.Context(), server, strings.ToLower(rand.Text()[:8]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i, s := range steps {
		got, err := r.replay(t.Context(), s)
		if err != nil {
			t.Fatalf("%s:%d %s: %v", file, s.Line, s.Title, err)
		}
		if diff := cmp.Diff(golden[i], got); diff != "" {
			t.Errorf("%s:%d %s: %s %s (-want +got)\n%s", file, s.Line, s.Title, s.Method, s.Path, diff)
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
	return golden
}
