package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// readyTimeout bounds a health check: a probe wants an answer, not patience.
const readyTimeout = 2 * time.Second

// check is one thing that a health path looks at.
type check struct {
	name string
	run  func(context.Context) error
}

// routeHealth serves the health paths, and the version, which need no token: /livez says that the process
// answers, /readyz and /healthz that etcd does, too.
func (s *Server) routeHealth() {
	router := s.router
	ping := check{"ping", func(context.Context) error { return nil }}
	etcd := check{"etcd", s.cfg.Ready}
	for path, checks := range map[string][]check{
		"livez": {ping}, "readyz": {ping, etcd}, "healthz": {ping, etcd},
	} {
		router.Path("/"+path).Methods(http.MethodGet, http.MethodHead).HandlerFunc(s.health(path, checks))
		for _, one := range checks {
			router.Path("/"+path+"/"+one.name).Methods(http.MethodGet, http.MethodHead).HandlerFunc(s.health(path, []check{one}))
		}
	}
	router.Path("/version" + finalSlashes).Methods(http.MethodGet).HandlerFunc(s.version)
	s.prefixes = append(s.prefixes, "/version/")
}

// health answers "ok", with ?verbose each check's outcome, too. A failure is a 500 that
// names the check; its reason is for the log alone, since anybody may ask.
func (s *Server) health(path string, checks []check) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		recordOf(w).attrs.Verb = "get"
		ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
		defer cancel()
		var report strings.Builder
		failed := false
		for _, one := range checks {
			if err := one.run(ctx); err != nil {
				failed = true
				s.cfg.Logger.Warn().Str("check", one.name).Err(err).Msg("a health check failed")
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

// version tells what the server is; it needs no token.
func (s *Server) version(w http.ResponseWriter, req *http.Request) {
	recordOf(w).attrs.Verb = "get"
	data, err := json.MarshalIndent(s.cfg.Version, "", "  ")
	if err != nil {
		s.renderError(recordOf(w), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // a client that has gone needs no answer
}
