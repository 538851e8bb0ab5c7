package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// TestOrdinaryUse does what no limit may refuse, with the default settings.
func TestOrdinaryUse(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of its own")
	}
	users, watchersEach := 20, 15
	if *long {
		users, watchersEach = 100, 50
	}
	lines := []string{}
	for i := range users {
		lines = append(lines, fmt.Sprintf(`%s,user-%d,%d,"team-a"`, userToken(i), i, 1000+i))
	}
	s := startServer(t, harness.Build(t, false), lines...)
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"ordinary"}}`)
	t.Run("informers", func(t *testing.T) { s.runInformers(t, users, watchersEach) })
	t.Run("a list of 43 MB", s.listMuch)
	t.Run("20,000 addresses", s.useLargeObject)
}

func userToken(i int) string { return fmt.Sprintf("user-%06d-0123456789abcdef", i) }

// client returns a client with connections of its own.
func (s *server) client(t *testing.T) *http.Client {
	t.Helper()
	transport := s.Client.Transport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// as sends a request as a user, which must succeed, and returns the beginning of the answer.
func (s *server) as(t *testing.T, user int, want int, method, path, body string, headers ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, answer, err := exchange(ctx, s.Client, s.URL, userToken(user), method, path, body, headers...)
	if err != nil || code != want {
		t.Fatalf("%s %s: got %d %.300s %v, want %d", method, path, code, answer, err, want)
	}
	return string(answer)
}

// runInformers lists and watches as many users' informers do, all at once, and checks that
// every one hears of a change.
func (s *server) runInformers(t *testing.T, users, each int) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var open, heard sync.WaitGroup
	for user := range users {
		client := s.client(t)
		for range each {
			open.Add(1)
			heard.Go(func() {
				var once sync.Once
				defer once.Do(open.Done)
				if err := s.inform(ctx, client, user, func() { once.Do(open.Done) }); err != nil && t.Context().Err() == nil {
					t.Errorf("user %d: %v", user, err)
				}
			})
		}
	}
	open.Wait()
	if !t.Failed() {
		s.as(t, 0, http.StatusCreated, http.MethodPost, endpointsIn("ordinary"), smallObject("news"))
	} else {
		cancel()
	}
	heard.Wait()
	t.Logf("%d watches: %d MB", users*each, s.memory(t, "VmRSS")>>20)
}

// inform lists, watches from there, calls watching once the watch is open, and returns once it
// has heard of an object that is named news.
func (s *server) inform(ctx context.Context, client *http.Client, user int, watching func()) error {
	path := endpointsIn("ordinary")
	code, answer, err := exchange(ctx, client, s.URL, userToken(user), http.MethodGet, path+"?limit=500&resourceVersion=0", "")
	if err != nil || code != http.StatusOK {
		return fmt.Errorf("the list: %d %.300s %w", code, answer, err)
	}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	url := s.URL + path + "?watch=1&allowWatchBookmarks=true&timeoutSeconds=540&resourceVersion=" + list.Metadata.ResourceVersion
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+userToken(user))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	watching()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"name":"news"`) {
			return nil
		}
	}
	return fmt.Errorf("the watch: %d %s %w", resp.StatusCode, lines.Text(), lines.Err())
}

// listMuch lists 43 MB in every form: a few large objects, or as many small ones as a large
// cluster has.
func (s *server) listMuch(t *testing.T) {
	objects, addresses := 15, 26_000
	if *long {
		objects, addresses = 20_000, 19
	}
	s.mustAdmin(t, http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"much"}}`)
	for i := range objects {
		s.mustAdmin(t, http.StatusCreated, http.MethodPost, endpointsIn("much"), objectOf(fmt.Sprintf("object-%d", i), addresses))
	}
	for user, accept := range []string{"application/json", asProtobuf, asTable, asYAML, asMetadata} {
		start := time.Now()
		s.as(t, user, http.StatusOK, http.MethodGet, endpointsIn("much"), "", "Accept", accept)
		t.Logf("%d objects as %s: %v, %d MB", objects, accept, time.Since(start), s.memory(t, "VmRSS")>>20)
	}
	for n, next := 0, ""; n == 0 || next != ""; n++ { // as kubectl does
		answer := s.as(t, 5, http.StatusOK, http.MethodGet, endpointsIn("much")+"?limit=500&continue="+next, "", "Accept", asMetadata)
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal([]byte(answer), &list); err != nil {
			t.Fatal(err)
		}
		next = list.Metadata.Continue
	}
}

// useLargeObject writes an object with 20,000 addresses in every way. Three such writes empty the
// bucket of one user, and a fast server would not refill it in time for more.
func (s *server) useLargeObject(t *testing.T) {
	const user, another, addresses = 6, 7, 20_000
	path := endpointsIn("ordinary") + "/large"
	body := objectOf("large", addresses)
	s.as(t, user, http.StatusCreated, http.MethodPost, endpointsIn("ordinary"), body)
	s.as(t, user, http.StatusOK, http.MethodPut, path, strings.Replace(body, `"10.0.0.0"`, `"10.9.9.9"`, 1))
	s.as(t, user, http.StatusOK, http.MethodPatch, path, `{"metadata":{"labels":{"a":"b"}}}`, "Content-Type", "application/"+mergePatch)
	s.as(t, another, http.StatusOK, http.MethodPatch, path, `{"metadata":{"labels":{"a":"c"}}}`, "Content-Type", "application/"+strategicPatch)
	s.as(t, another, http.StatusOK, http.MethodPatch, path, `[{"op":"add","path":"/subsets/0/addresses/-","value":{"ip":"10.9.9.8"}}]`, "Content-Type", "application/"+jsonPatch)
	s.as(t, another, http.StatusOK, http.MethodPatch, path+"?fieldManager=other&force=true",
		strings.Replace(body, "{", `{"apiVersion":"v1","kind":"Endpoints",`, 1), "Content-Type", "application/"+applyPatch)
	for _, accept := range []string{"application/json", asProtobuf, asYAML} {
		s.as(t, user, http.StatusOK, http.MethodGet, path, "", "Accept", accept)
	}
	s.as(t, user, http.StatusOK, http.MethodDelete, path, "")
}
