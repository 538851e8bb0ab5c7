package api

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/test/apitest"
)

// incompressible is Endpoints of about 250 KB, which take 190 KB in etcd.
func incompressible(t *testing.T, name string) *corev1.Endpoints {
	t.Helper()
	data := make([]byte, 186<<10)
	rand.Read(data)
	return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Name: name, Finalizers: []string{"example.com/hold"}, Annotations: map[string]string{"a": base64.StdEncoding.EncodeToString(data)},
	}}
}

const (
	smallQuota = 16 << 20
	held       = 6 // objects of fillDatabase have a finalizer
)

// fillDatabase creates objects until the database has no room for another, and
// returns how many there are, and the answer.
func fillDatabase(t *testing.T, server *apitest.Server, ns string) (int, *answer) {
	t.Helper()
	create := func(n int) *answer {
		obj := incompressible(t, fmt.Sprint("e-", n))
		if n >= held {
			obj.Finalizers = nil
		}
		return send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), encode(t, runtime.ContentTypeJSON, obj)))
	}
	for n := range 1000 {
		switch a := create(n); {
		case a.code == 201:
		case scrape(t, server)["etcd_mvcc_db_total_size_in_use_in_bytes"] > smallQuota*0.85:
			return n, a
		default: // what has just been written is counted twice for a moment
			eventually(t, "room, or a full database", func() bool {
				return create(n).code == 201 || scrape(t, server)["etcd_mvcc_db_total_size_in_use_in_bytes"] > smallQuota*0.85
			})
		}
	}
	t.Fatal("the database never becomes full")
	return 0, nil
}

func patchEndpoints(t *testing.T, server *apitest.Server, ns, name, patch string) *answer {
	t.Helper()
	return send(t, server.Client, newRequest(t, server, http.MethodPatch, endpointsPath(ns, name), []byte(patch), "Content-Type", "application/merge-patch+json"))
}

// checkRoomAgain waits until an object can be created again.
func checkRoomAgain(t *testing.T, server *apitest.Server) {
	t.Helper()
	eventually(t, "room for another object", func() bool {
		name := fmt.Sprintf("again-%d", time.Now().UnixNano())
		a := send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath("default", ""), encode(t, runtime.ContentTypeJSON, incompressible(t, name))))
		return a.code == 201
	})
}

// A client that fills the database meets the end before etcd does: everything that leads to
// more room goes on, and the room comes back by itself.
func TestNearlyFullDatabase(t *testing.T) {
	t.Parallel()
	server := startServer(t, apitest.Config{QuotaBytes: smallQuota})
	ns := newNamespace(t, server)
	n, refused := fillDatabase(t, server, ns)
	checkCode(t, refused, 503, "etcd's database is nearly full")
	if refused.header.Get("Retry-After") == "" || decode[*metav1.Status](t, refused).Details.Causes[0].Type != "StorageFull" {
		t.Errorf("%v %s", refused.header, refused.body)
	}
	if n < smallQuota/2/(190<<10) {
		t.Errorf("full after %d objects", n)
	}
	grown := 0
	eventually(t, "an update that makes an object larger is refused", func() bool {
		grown++ // what was refused may have been written just now, and be compacted
		return patchEndpoints(t, server, ns, "e-0", fmt.Sprintf(`{"metadata":{"labels":{"more-%d":"x"}}}`, grown)).code == 503
	})

	eventually(t, "an object made smaller", func() bool {
		return patchEndpoints(t, server, ns, "e-1", `{"metadata":{"annotations":null}}`).code == 200
	})
	eventually(t, "an object marked as deleted", func() bool {
		return send(t, server.Client, newRequest(t, server, http.MethodDelete, endpointsPath(ns, "e-2"), nil)).code == 200
	})
	eventually(t, "its removal", func() bool {
		return patchEndpoints(t, server, ns, "e-2", `{"metadata":{"finalizers":null}}`).code == 200
	})
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, endpointsPath(ns, "e-2"), nil)), 404, "")
	eventually(t, "the deletion of the namespace", func() bool {
		return send(t, server.Client, newRequest(t, server, http.MethodDelete, "/api/v1/namespaces/"+ns, nil)).code == 200
	})
	for i := range held {
		// The namespace marks those that are left, and this removes them. What they replace is
		// compacted meanwhile.
		eventually(t, "the removal of a finalizer", func() bool {
			code := patchEndpoints(t, server, ns, fmt.Sprint("e-", i), `{"metadata":{"finalizers":null}}`).code
			return code == 200 || code == 404
		})
	}
	eventually(t, "the namespace is gone", func() bool {
		return send(t, server.Client, newRequest(t, server, http.MethodGet, "/api/v1/namespaces/"+ns, nil)).code == 404
	})
	checkRoomAgain(t, server)
	if quota := scrape(t, server)["etcd_server_quota_backend_bytes"]; quota != smallQuota {
		t.Errorf("the quota's metric is %v", quota)
	}
}

// With the alarm raised all the same, the answer says what helps; that, and a start in
// between, leads out of it.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	cfg := apitest.Config{QuotaBytes: smallQuota, DataDir: t.TempDir()}
	server := startServer(t, cfg)
	ns := newNamespace(t, server)
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), encode(t, runtime.ContentTypeJSON, incompressible(t, "held")))), 201, "")
	inUse := func() float64 { return scrape(t, server)["etcd_mvcc_db_total_size_in_use_in_bytes"] }
	for i := 0; inUse() < smallQuota*0.92; i++ {
		name := fmt.Sprint("plain-", i)
		value := fmt.Sprintf(`{"kind":"Endpoints","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"annotations":{"a":%q}}}`, name, ns, incompressible(t, "").Annotations["a"])
		eventually(t, "the database is full, or takes more", func() bool { // where that defragments it
			return server.PutInEtcd(t.Context(), "/registry/endpoints/"+ns+"/"+name, value) == nil || inUse() >= smallQuota*0.92
		})
	}
	eventually(t, "the alarm", func() bool {
		err := server.PutInEtcd(t.Context(), "/other", strings.Repeat("x", smallQuota/10))
		return err != nil && strings.Contains(err.Error(), "database space exceeded")
	})
	for range 2 {
		var refused *answer
		eventually(t, "a create is refused", func() bool { // etcd may have found some room by itself
			obj := incompressible(t, fmt.Sprintf("more-%d", time.Now().UnixNano()))
			obj.Finalizers = nil
			refused = send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), encode(t, runtime.ContentTypeJSON, obj)))
			return refused.code != 201
		})
		checkCode(t, refused, 503, "Delete objects")
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		server = startServer(t, cfg)
	}
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, "/readyz", nil)), 200, "ok")
	for i := range 15 {
		checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodDelete, endpointsPath(ns, fmt.Sprint("plain-", i)), nil)), 200, "")
	}
	eventually(t, "the removal of a finalizer", func() bool {
		return patchEndpoints(t, server, ns, "held", `{"metadata":{"finalizers":null}}`).code == 200
	})
	checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodDelete, endpointsPath(ns, "")+"?fieldSelector=metadata.name%21%3Dheld", nil)), 200, "")
	checkRoomAgain(t, server)
}
