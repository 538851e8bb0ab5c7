package main

import (
	"bufio"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ended is how a watch of a server that stops came to its end.
type ended struct {
	at    time.Time
	lines []string
}

// A server that stops says so at /readyz first, and serves everything for a while. Then its
// watches end one after the other, with a bookmark for those who have bookmarks.
func TestProcessTakesLeave(t *testing.T) {
	const watches, over = 8, 2 * time.Second
	p := startProcess(t, filepath.Join(t.TempDir(), "data"), "--shutdown-delay-duration=3s", "--shutdown-watch-termination-grace-period="+over.String())
	p.awaitReady(t)
	client, token := caller(t, p.dir.PKI().CACert()), p.token(t)
	client.Timeout = 0
	var watching sync.WaitGroup
	results := make([]ended, watches)
	for i := range results {
		query := "?watch=1"
		if i%2 == 0 {
			query += "&allowWatchBookmarks=true"
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+endpointsPath+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() {
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				results[i].lines = append(results[i].lines, lines.Text())
			}
			if err := lines.Err(); err != nil {
				t.Errorf("watch %d was cut off: %v", i, err)
			}
			results[i].at = time.Now()
		})
	}
	p.signal(t, syscall.SIGTERM)
	eventually(t, func() error {
		code, body := call(t, client, "GET", p.url+"/readyz", token, "")
		if code != http.StatusInternalServerError || !strings.Contains(body, "[-]shutdown failed") {
			return fmt.Errorf("/readyz: got %d %s", code, body)
		}
		return nil
	})
	if code, body := call(t, client, "GET", p.url+"/livez", token, ""); code != http.StatusOK {
		t.Errorf("/livez: got %d %s", code, body)
	}
	if code, body := call(t, client, "POST", p.url+endpointsPath, token, exampleBody); code != http.StatusCreated {
		t.Errorf("a create during the delay: got %d %s", code, body)
	}
	watching.Wait()
	first, last := results[0].at, results[0].at
	for i, r := range results {
		var types []string
		for _, line := range r.lines {
			types = append(types, strings.Split(line, `"`)[3])
		}
		want := []string{"ADDED"}
		if i%2 == 0 { // the first bookmark ends the initial events
			want = []string{"BOOKMARK", "ADDED", "BOOKMARK"}
		}
		if diff := cmp.Diff(want, types); diff != "" {
			t.Errorf("watch %d (-want +got):\n%s", i, diff)
		}
		if r.at.Before(first) {
			first = r.at
		}
		if r.at.After(last) {
			last = r.at
		}
	}
	if spread := last.Sub(first); spread < over/2 || spread > 2*over {
		t.Errorf("the watches ended within %v, want about %v", spread, over)
	}
	client.CloseIdleConnections()
	<-p.ended
	if p.status != 0 {
		t.Errorf("status %d: %s", p.status, p.stderr.String())
	}
}
