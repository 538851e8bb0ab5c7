package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/server/requestinfo"
)

const (
	// readyTimeout bounds a health check: a probe wants an answer, not patience.
	readyTimeout = 2 * time.Second
	// readyFreshness is how long the answer of a health check is good for other probes.
	readyFreshness = 100 * time.Millisecond
)

// check is one thing that a health path looks at.
type check struct {
	name string
	run  func(context.Context) error
}

// routeHealth serves the health paths, and the version, which need no token: /livez says that the process
// answers, /readyz and /healthz that etcd does, too, and /readyz that the server does not stop.
func (s *Server) routeHealth() {
	router := s.router
	ping := check{"ping", func(context.Context) error { return nil }}
	etcd := check{"etcd", newSharedCheck(s.checkReady).answer}
	stopping := check{"shutdown", func(context.Context) error { return s.stages.Ready() }}
	for path, checks := range map[string][]check{
		"livez": {ping}, "readyz": {ping, etcd, stopping}, "healthz": {ping, etcd},
	} {
		router.Path("/"+path).Methods(http.MethodGet, http.MethodHead).Handler(countedProbe(path, s.health(path, checks)))
		for _, one := range checks {
			router.Path("/"+path+"/"+one.name).Methods(http.MethodGet, http.MethodHead).Handler(s.health(path, []check{one}))
		}
	}
	router.Path("/version" + finalSlashes).Methods(http.MethodGet).HandlerFunc(s.version)
	s.prefixes = append(s.prefixes, "/version/")
}

// countedProbe counts the requests for a health path. As with kube-apiserver, those for one check are
// not.
func countedProbe(path string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		recordOf(w).count("/" + path)
		next(w, req)
	})
}

// pageProbe is the name of the page for browsers among the paths that need no token.
const pageProbe = "page"

// probeOf returns the name of the path that a request asks for which needs no token, "" where it
// needs one. Each of those paths is limited by itself.
func (s *Server) probeOf(req *http.Request) string {
	if !isReadOnly(req) || len(req.URL.Path) > requestinfo.MaxPathBytes {
		return ""
	}
	// Clients of the token service find it by the index, before they have a token.
	if asksForPage(req) || req.URL.Path == "/" && s.cfg.Identity != nil {
		return pageProbe
	}
	path, check, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch {
	case path == "livez", path == "readyz", path == "healthz":
		return path
	case path == "version" && strings.Trim(check, "/") == "":
		return path
	}
	return ""
}

// isHealth reports whether a request asks for a health path, which is answered to the end.
func isHealth(req *http.Request) bool {
	path, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	return path == "livez" || path == "readyz" || path == "healthz"
}

// health answers "ok", with ?verbose each check's outcome, too. A failure is a 500 that
// names the check; its reason is for the log alone, since anybody may ask.
func (s *Server) health(path string, checks []check) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		var report strings.Builder
		failed := false
		for _, one := range checks {
			if err := one.run(req.Context()); err != nil {
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", one.name)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", one.name)
		}
		if failed {
			http.Error(w, report.String()+path+" check failed", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body := "ok"
		if req.URL.Query().Has("verbose") {
			body = report.String() + path + " check passed\n"
		}
		_, _ = w.Write([]byte(body)) // a probe that has gone needs no answer
	}
}

// checkReady asks whether requests can be served now, for a probe.
func (s *Server) checkReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := s.cfg.Ready(ctx)
	if err != nil {
		s.cfg.Logger.Warn().Str("check", "etcd").Err(err).Msg("a health check failed")
	}
	return err
}

// sharedCheck runs a check for all who ask at the same time or shortly after: anybody may
// ask, as often as they like.
type sharedCheck struct {
	run  func(context.Context) error // ends by itself
	turn chan struct{}               // whoever has sent to it may run, and use what is below
	at   time.Time                   // when run ended last
	err  error                       // what it returned
}

func newSharedCheck(run func(context.Context) error) *sharedCheck {
	return &sharedCheck{run: run, turn: make(chan struct{}, 1)}
}

// answer waits for its turn until ctx ends. The check itself does not end with ctx: its
// answer is for others, too.
func (c *sharedCheck) answer(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if time.Since(c.at) > readyFreshness {
		c.err = c.run(context.WithoutCancel(ctx))
		c.at = time.Now()
	}
	return c.err
}

// version tells what the server is; it needs no token.
func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	data, err := json.MarshalIndent(s.cfg.Version, "", "  ")
	if err != nil {
		s.renderError(recordOf(w), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // a client that has gone needs no answer
}
