package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

// patience is far longer than anything here takes, even on a busy machine.
const patience = time.Minute

// runMain is set in the environment of a process of these tests that is to be the tool.
const runMain = "LOADTEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// result is what a run of the whole tool left behind.
type result struct {
	status         int
	stdout, stderr string
	html           string
	report         report.Report
}

// all is everything that a user can see of a run.
func (r *result) all() string {
	encoded, err := json.Marshal(r.report)
	if err != nil {
		panic(err)
	}
	return r.stdout + r.stderr + r.html + string(encoded)
}

// runTool runs the whole tool against f with further flags.
func runTool(t *testing.T, f *fakeAPI, args ...string) *result {
	t.Helper()
	return runUntil(t.Context(), t, f, args...)
}

func runUntil(ctx context.Context, t *testing.T, f *fakeAPI, args ...string) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir := t.TempDir()
	jsonFile, htmlFile := filepath.Join(dir, "run.json"), filepath.Join(dir, "run.html")
	args = append([]string{"--server=" + f.URL, "--ca-file=" + f.caFile(t), "--objects=5", "--output=text,json=" + jsonFile + ",html=" + htmlFile}, args...)
	var stdout, stderr bytes.Buffer
	r := &result{status: execute(ctx, args, &stdout, &stderr, &undone{})}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	if r.status == statusFailed {
		return r
	}
	r.html = read(t, htmlFile)
	if err := json.Unmarshal([]byte(read(t, jsonFile)), &r.report); err != nil {
		t.Fatal(err)
	}
	return r
}

// caFile returns a file with the CA of the server.
func (f *fakeAPI) caFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})))
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
