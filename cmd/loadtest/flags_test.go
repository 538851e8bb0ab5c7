package main

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Of several tokens, the one that is refused is named by its line and user: before the load,
// where it ends the run, and during the load.
func TestRunNamesRefusedToken(t *testing.T) {
	file := t.TempDir() + "/tokens.csv"
	write(t, file, "good-secret,ann,1\n\nbad-secret,bob,2\n")
	refuse := func(when func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") != "Bearer bad-secret" || !when(r) {
				return false
			}
			writeStatus(w, http.StatusUnauthorized, "Unauthorized", "who is bad-secret?")
			return true
		}
	}
	flags := []string{"--token-file=" + file, "--rate=50", "--duration=200ms", "--mix=get=1"}
	const want = "token #2 (line 3 of %s, user bob): who is #2?"
	named := strings.ReplaceAll(want, "%s", file)

	f := newFakeAPI(t)
	f.answer = refuse(func(r *http.Request) bool { return r.Method == http.MethodPost && !isLoad(r) })
	early := runTool(t, f, flags...)
	if early.status != statusFailed || !strings.Contains(early.stderr, named) {
		t.Errorf("status %d, want %q in\n%s", early.status, named, early.stderr)
	}
	f.answer = refuse(isLoad)
	late := runTool(t, f, flags...)
	if late.status != statusMissed || !strings.Contains(late.stderr, named) || !strings.Contains(late.stdout, named) ||
		!strings.Contains(late.stdout, "#2  line 3 of "+file+", user bob") {
		t.Errorf("status %d, want %q in\n%s\n%s", late.status, named, late.stdout, late.stderr)
	}
	if all := early.all() + late.all(); strings.Contains(all, "secret") {
		t.Errorf("a token is in the output:\n%s", all)
	}
}

// A condition that holds ends with status 2 and is named; one that does not is reported.
func TestRunFailsIf(t *testing.T) {
	f := newFakeAPI(t)
	flags := []string{"--rate=50", "--duration=400ms", "--mix=get=1,create=1", "--watchers=2"}
	r := runTool(t, f, append(flags, "--fail-if=create.p50>1us", "--fail-if=watch.max > 1us", "--fail-if=get.p99>1h", "--fail-if=errors>0%", "--fail-if=watch.errors>0%")...)
	if r.status != statusMissed || !strings.Contains(r.stderr, "loadtest: --fail-if create.p50>1us: ") || !strings.Contains(r.stderr, "; watch.max>1us: ") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	got := map[string]bool{}
	for _, check := range r.report.Checks {
		got[check.Condition] = check.Failed
		if !strings.Contains(r.stdout, check.String()) || (check.Milliseconds == nil) == (check.Share == nil) {
			t.Errorf("the check %+v is not in\n%s", check, r.stdout)
		}
	}
	want := map[string]bool{"create.p50>1us": true, "watch.max>1us": true, "get.p99>1h": false, "errors>0%": false, "watch.errors>0%": false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if r := runTool(t, f, append(flags, "--fail-if=p99>1h")...); r.status != statusOK || len(r.report.Checks) != 1 {
		t.Errorf("status %d, checks %+v: %s", r.status, r.report.Checks, r.stderr)
	}
	// A faulty one is named before the run.
	before := f.count("")
	if r := runTool(t, f, append(flags, "--fail-if=p98>1s")...); r.status != statusFailed || !strings.Contains(r.stderr, `--fail-if: "p98>1s": "p98" is not one of `) || f.count("") != before {
		t.Errorf("status %d after %d requests: %s", r.status, f.count("")-before, r.stderr)
	}
}

func TestRunInPhases(t *testing.T) {
	f := newFakeAPI(t)
	r := runTool(t, f, "--phase=500ms@20", "--phase=1s@0-100", "--mix=update=1", "--watchers=1", "--pid="+strconv.Itoa(os.Getpid()))
	if r.status != statusOK || len(r.report.Phases) != 2 {
		t.Fatalf("status %d, phases %+v: %s", r.status, r.report.Phases, r.stderr)
	}
	first, second := r.report.Phases[0], r.report.Phases[1]
	q := r.report.Requests
	if q.Due != 60 || first.Sent != 10 || first.Sent+second.Sent != q.Sent || first.Seconds != 0.5 || second.Start != 0.5 || second.From != 0 || second.To != 100 {
		t.Errorf("of %+v, the phases have %+v and %+v", q, first, second)
	}
	if first.Response.Count != int64(first.Sent) || first.Delay.Count != int64(first.Sent) || len(first.Verbs) != 1 || first.Verbs[0].Response != first.Response {
		t.Errorf("the first phase has %+v", first)
	}
	for _, want := range []string{"1. 0.5 s at 20/s", "2. 1 s at 0 to 100/s", "0.5 s at 20/s, 1 s at 0 to 100/s"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}
	if diff := cmp.Diff([]string{"500ms@20", "1s@0-100"}, r.report.Settings.Schedule); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	p := r.report.Process
	if p == nil || p.PID != os.Getpid() || p.CPUSeconds <= 0 || p.PeakRSSBytes < 1<<20 || p.CPUSecondsPerRequest != p.CPUSeconds/float64(q.Sent) {
		t.Errorf("the process used %+v", p)
	}
	if r := runTool(t, f, "--pid=2147483647"); r.status != statusFailed || !strings.Contains(r.stderr, "--pid: the process 2147483647 cannot be observed") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

// Requests and watches are spread over the namespaces, and all of these are deleted.
func TestRunInNamespaces(t *testing.T) {
	f := newFakeAPI(t)
	var mu sync.Mutex
	seen := map[string]int{}
	f.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if isLoad(r) {
			seen[strings.Split(r.URL.Path, "/")[4]]++
		} else if r.URL.Query().Get("watch") != "" {
			seen["watch "+strings.Split(r.URL.Path, "/")[4]]++
		}
		return false
	}
	r := runTool(t, f, "--namespaces=3", "--watchers=4", "--rate=100", "--duration=500ms", "--mix=create=1,get=3,list=1")
	if r.status != statusOK || len(f.namespaces) > 0 {
		t.Fatalf("status %d, left %v: %s", r.status, f.namespaces, r.stderr)
	}
	for namespace, watches := range map[string]int{"loadtest-1": 2, "loadtest-2": 1, "loadtest-3": 1} {
		if seen[namespace] == 0 || seen["watch "+namespace] != watches {
			t.Errorf("%s: %v, want requests and %d watches", namespace, seen, watches)
		}
	}
	var creates uint64
	for _, v := range r.report.Verbs {
		if v.Verb == "create" {
			creates = v.Succeeded
		}
	}
	// Every namespace has at least one watch, and one of them has two.
	if w := r.report.Watch; w.Expected < creates || w.Expected > 2*creates {
		t.Errorf("%d events are expected of %d creates", w.Expected, creates)
	}
}

// The server that takes longer is found, and both are left as they were.
func TestRunVersus(t *testing.T) {
	fast, slow := newFakeAPI(t), newFakeAPI(t)
	slow.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if isLoad(r) && r.Method == http.MethodGet {
			<-time.After(100 * time.Millisecond) // an answer that takes its time
		}
		return false
	}
	kubeconfig := t.TempDir() + "/kubeconfig"
	write(t, kubeconfig, `apiVersion: v1
kind: Config
current-context: slow
contexts: [{name: slow, context: {cluster: slow, user: me}}]
clusters: [{name: slow, cluster: {server: "`+slow.URL+`", certificate-authority: "`+slow.caFile(t)+`"}}]
users: [{name: me, user: {token: their-secret}}]
`)
	r := runTool(t, fast, "--versus-kubeconfig="+kubeconfig, "--rounds=6", "--duration=6s", "--rate=20", "--mix=get=1", "--token=our-secret")
	if r.status != statusOK || r.report.Versus == nil {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	c := r.report.Versus.Comparison
	for _, row := range c.Rows {
		if row.Faster != "a" || row.PValue == nil || *row.PValue > 0.01 || row.P50.B < 100 || row.P50.Change <= 0 {
			t.Errorf("%s: %+v, want a as the faster one", row.Name, row)
		}
		for _, text := range []string{r.stdout, r.html} {
			if !strings.Contains(text, "A is faster (p=0.002)") {
				t.Errorf("it is not said that A is faster:\n%s", text)
			}
		}
	}
	checkNesting(t, r.html)
	if len(c.Rows) != 2 || c.A.Server.URL != fast.URL || c.B.Server.URL != slow.URL || len(c.Different) > 0 {
		t.Errorf("the comparison is %+v", c)
	}
	if a, b := r.report.Requests, r.report.Versus.Other.Requests; a.Due != 120 || b.Due != 120 || len(r.report.Phases) != 6 {
		t.Errorf("requests %+v and %+v, want 120 due on each server in 6 rounds", a, b)
	}
	if fast.count("their-secret") > 0 || slow.count("our-secret") > 0 {
		t.Error("a server got the token of the other one")
	}
	if len(fast.namespaces)+len(slow.namespaces) > 0 {
		t.Errorf("namespaces are left: %v, %v", fast.namespaces, slow.namespaces)
	}
}

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	f := newFakeAPI(t)
	for file, rate := range map[string]string{"a": "30", "b": "60"} {
		r := runTool(t, f, "--rate="+rate, "--duration=200ms", "--mix=get=1", "--output=json="+dir+"/"+file)
		if r.status != statusOK {
			t.Fatal(r.stderr)
		}
	}
	write(t, dir+"/evil", strings.ReplaceAll(read(t, dir+"/b"), f.URL, `https://\u001b[2J\u202e`))
	write(t, dir+"/other", `{"kind":"Pod"}`)
	write(t, dir+"/none", `no JSON`)
	for file, want := range map[string]string{
		"b":       "get ",
		"evil":    "https:// [2J",
		"other":   "other is not a JSON report of loadtest",
		"none":    "none is not a JSON report: ",
		"missing": "no such file",
	} {
		var stdout, stderr strings.Builder
		status := execute(t.Context(), []string{"compare", dir + "/a", dir + "/" + file}, &stdout, &stderr, &undone{})
		if !strings.Contains(stdout.String()+stderr.String(), want) || (status == statusOK) != (stdout.Len() > 0) {
			t.Errorf("%s: status %d, want %q in\n%s\n%s", file, status, want, &stdout, &stderr)
		}
		expectPrintable(t, stdout.String()+stderr.String())
		if status == statusOK && !strings.Contains(stdout.String(), "The settings differ: schedule: [200ms@30], [200ms@60]") {
			t.Errorf("%s: it is not said what differs:\n%s", file, &stdout)
		}
	}
}
