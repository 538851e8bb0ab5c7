package server

import (
	"context"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/requestinfo"
)

// rights allows what it has, each as "user verb resource name" or "user verb path".
type rights struct {
	mutex   sync.Mutex
	have    []string
	changed chan struct{}
}

func newRights(have ...string) *rights { return &rights{have: have, changed: make(chan struct{})} }

func (r *rights) Authorize(_ context.Context, attrs auth.Attributes) (bool, string, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	asked := attrs.User.Name + " " + attrs.Verb + " " + attrs.Path
	if attrs.ResourceRequest {
		asked = strings.TrimSpace(attrs.User.Name + " " + attrs.Verb + " " + attrs.Resource + " " + attrs.Name)
	}
	return slices.Contains(r.have, asked), "", nil
}

func (r *rights) Changed() <-chan struct{} {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.changed
}

// set replaces what is allowed.
func (r *rights) set(have ...string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.have = have
	close(r.changed)
	r.changed = make(chan struct{})
}

func TestImpersonation(t *testing.T) {
	cfg := testConfig(t, &fakeResource{get: func(ctx context.Context) (*object.Object, error) {
		return named(t, auth.UserFrom(ctx).Name, 0), nil
	}})
	cfg.Authorizer = newRights("admin get endpoints a", "admin impersonate users bob", "admin impersonate groups dev", "bob get endpoints a")
	s := newTestServer(t, cfg)
	many := make([]string, 0, 2*requestinfo.MaxImpersonated+4)
	for range requestinfo.MaxImpersonated + 1 {
		many = append(many, "Impersonate-Group", "g")
	}
	for _, tc := range []struct {
		headers []string
		code    int
		text    string
	}{
		{nil, 200, `"name":"admin"`},
		{[]string{"Impersonate-User", ""}, 200, `"name":"admin"`},
		{[]string{"X-Impersonate-User", "bob"}, 200, `"name":"admin"`},
		{[]string{"Impersonate-User", "bob"}, 200, `"name":"bob"`},
		{[]string{"Impersonate-User", "bob", "Impersonate-Group", "dev"}, 200, `"name":"bob"`},
		{[]string{"Impersonate-User", "bob", "Impersonate-Group", "ops"}, 403, `User \"admin\" cannot impersonate resource \"groups\"`},
		{[]string{"Impersonate-User", "carol"}, 403, `User \"admin\" cannot impersonate resource \"users\"`},
		{[]string{"Impersonate-Group", "dev"}, 400, "without impersonating a user name"},
		{[]string{"Impersonate-Uid", "1"}, 400, "without impersonating a user name"},
		{[]string{"Impersonate-Extra-Scopes", "x"}, 400, "without impersonating a user name"},
		{append(many, "Impersonate-User", "bob"), 400, "of which there may be 1000"},
	} {
		req := newRequest(t, http.MethodGet, testPath+"/a", "")
		for i := 0; i < len(tc.headers); i += 2 {
			req.Header.Add(tc.headers[i], tc.headers[i+1])
		}
		if w := serveOnce(s, req); w.Code != tc.code || !strings.Contains(w.Body.String(), tc.text) {
			t.Errorf("%.100q: got %d %s, want %d %s", tc.headers, w.Code, w.Body, tc.code, tc.text)
		}
	}
}

// A watch ends once its user may no longer have it, by itself or as another.
func TestWatchesEndWithTheirRights(t *testing.T) {
	const own, others, impersonation = "admin watch endpoints", "bob watch endpoints", "admin impersonate users bob"
	for name, tc := range map[string]struct {
		header, left []string
		text         string
	}{
		"one's own":              {nil, []string{impersonation, others}, `User \"admin\" cannot watch resource \"endpoints\"`},
		"of the impersonated":    {[]string{"Impersonate-User", "bob"}, []string{impersonation, own}, `User \"bob\" cannot watch resource \"endpoints\"`},
		"of impersonating":       {[]string{"Impersonate-User", "bob"}, []string{own, others}, `User \"admin\" cannot impersonate`},
		"before it could follow": {nil, nil, `User \"admin\" cannot watch resource \"endpoints\"`},
	} {
		t.Run(name, func(t *testing.T) {
			rights := newRights(own, others, impersonation)
			begun := make(chan struct{})
			cfg := testConfig(t, &fakeResource{watch: func(ctx context.Context) iter.Seq2[[]object.Event, error] {
				if tc.left == nil {
					rights.set()
				}
				return func(yield func([]object.Event, error) bool) {
					close(begun)
					<-ctx.Done()
				}
			}})
			cfg.Authorizer = rights
			s := newTestServer(t, cfg)
			t.Cleanup(s.Close)
			go func() {
				<-begun
				if tc.left != nil {
					rights.set(tc.left...)
				}
			}()
			w := serveOnce(s, newRequest(t, http.MethodGet, testPath+"?watch=1", "", tc.header...))
			if body := w.Body.String(); w.Code != 200 || !strings.HasPrefix(body, `{"type":"ERROR"`) || !strings.Contains(body, tc.text) {
				t.Errorf("got %d %s, want %s", w.Code, body, tc.text)
			}
		})
	}
}

// A token may be revoked in the very moment in which its watch ends.
func TestRevokedAfterTheEnd(t *testing.T) {
	identity, revoke := context.WithCancel(t.Context())
	defer revoke()
	rec := &record{ResponseWriter: httptest.NewRecorder()}
	rec.startPauses()
	hurried := make(chan struct{})
	o := &watching{rec: rec, pauses: rec.pauses, cancel: func() { close(hurried) }}
	context.AfterFunc(identity, o.hurryAway)
	rec.endPauses()
	revoke()
	<-hurried
}
