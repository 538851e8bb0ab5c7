package etcd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

func TestCheckVersion(t *testing.T) {
	for version, needs := range map[string]string{
		"2.3.8":            "3.4.31",
		"3.3.27":           "3.4.31",
		"3.4.0":            "3.4.31",
		"3.4.30":           "3.4.31",
		"3.4.31":           "",
		"3.4.40":           "",
		"3.5.0":            "3.5.13",
		"3.5.7":            "3.5.13",
		"3.5.12":           "3.5.13",
		"3.5.13-rc.1":      "3.5.13",
		"3.5.13":           "",
		"3.5.13+git":       "",
		"3.5.100":          "",
		"3.6.0-alpha.0":    "3.6.0-rc.0",
		"3.6.0-rc.5":       "",
		"3.6.0":            "",
		"3.7.3":            "",
		"3.10.0":           "",
		"4.0.0":            "",
		"":                 `unknown version ""`,
		"Not provided":     `unknown version "Not provided"`,
		"3.5":              `unknown version "3.5"`,
		"3.5.x":            `unknown version "3.5.x"`,
		"3.5.13\nand more": `unknown version "3.5.13\nand more"`,
	} {
		err := checkVersion(version)
		switch {
		case needs == "" && err != nil:
			t.Errorf("%q: %v", version, err)
		case needs != "" && (err == nil || !strings.Contains(err.Error(), needs)):
			t.Errorf("%q: got %v, want %s", version, err, needs)
		}
	}
}

// fakeMember is an etcd that knows its version and its cluster, and nothing else.
type fakeMember struct {
	etcdserverpb.UnimplementedMaintenanceServer
	etcdserverpb.UnimplementedClusterServer
	id, cluster uint64
	version     string
	mu          sync.Mutex
	members     []*etcdserverpb.Member // nil: it does not list them
}

func (f *fakeMember) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	return &etcdserverpb.StatusResponse{Header: &etcdserverpb.ResponseHeader{MemberId: f.id, ClusterId: f.cluster}, Version: f.version}, nil
}

func (f *fakeMember) MemberList(ctx context.Context, r *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.members == nil {
		return f.UnimplementedClusterServer.MemberList(ctx, r)
	}
	return &etcdserverpb.MemberListResponse{Members: f.members}, nil
}

// start serves the member until the test ends and returns its URL.
func (f *fakeMember) start(t *testing.T) string {
	t.Helper()
	return "http://" + serve(t, func(server *grpc.Server) {
		etcdserverpb.RegisterMaintenanceServer(server, f)
		etcdserverpb.RegisterClusterServer(server, f)
	})
}

// silentURL is an address at which nothing answers.
func silentURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestCheckVersions(t *testing.T) {
	const cluster = 7
	newer := &fakeMember{id: 2, cluster: cluster, version: "3.6.1"}
	old := &fakeMember{id: 3, cluster: cluster, version: "3.5.7"}
	older := &fakeMember{id: 4, cluster: cluster, version: "3.4.20"}
	stranger := &fakeMember{id: 3, cluster: cluster + 1, version: "3.4.1"}
	newerURL, oldURL, olderURL, strangerURL, down := newer.start(t), old.start(t), older.start(t), stranger.start(t), silentURL(t)
	fault := func(url, version, needs string) string {
		return fmt.Sprintf("etcd at %s has version %s, whose watches are not reliable (etcd-io/etcd#15220): it needs %s or later", url, version, needs)
	}
	listed := func(id uint64, urls ...string) *etcdserverpb.Member {
		return &etcdserverpb.Member{ID: id, ClientURLs: urls}
	}
	const goodURL = "good" // stands for the URL of a member of the case's own, which lists members
	self := listed(1)
	for name, tc := range map[string]struct {
		endpoints []string
		members   []*etcdserverpb.Member
		silent    []string
		err       string
	}{
		"all good":                      {[]string{goodURL, newerURL}, nil, nil, ""},
		"the oldest counts":             {[]string{newerURL, oldURL, goodURL}, nil, nil, fault(oldURL, "3.5.7", "3.5.13")},
		"several are too old":           {[]string{oldURL, olderURL}, nil, nil, fault(oldURL, "3.5.7", "3.5.13") + "; " + fault(olderURL, "3.4.20", "3.4.31")},
		"one does not answer":           {[]string{down, goodURL}, nil, []string{down}, ""},
		"one is old, one not there":     {[]string{down, oldURL}, nil, []string{down}, fault(oldURL, "3.5.7", "3.5.13")},
		"none answers":                  {[]string{down}, nil, []string{down}, "no member tells its version"},
		"an old one is not an endpoint": {[]string{goodURL}, []*etcdserverpb.Member{self, listed(3, down, oldURL)}, nil, fault(oldURL, "3.5.7", "3.5.13")},
		"another is not reachable":      {[]string{goodURL}, []*etcdserverpb.Member{self, listed(3, down)}, []string{down}, ""},
		"another has not started":       {[]string{goodURL}, []*etcdserverpb.Member{self, listed(3)}, nil, ""},
		"another's URL is a stranger's": {[]string{goodURL}, []*etcdserverpb.Member{self, listed(3, strangerURL)}, []string{strangerURL}, ""},
		"another's URL is a third's":    {[]string{goodURL}, []*etcdserverpb.Member{self, listed(3, newerURL)}, []string{newerURL}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := &fakeMember{id: 1, cluster: cluster, version: "3.5.13", members: tc.members}
			endpoints := slices.Clone(tc.endpoints)
			if i := slices.Index(endpoints, goodURL); i >= 0 {
				endpoints[i] = good.start(t)
			}
			client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			silent, err := CheckVersions(t.Context(), client)
			slices.Sort(silent)
			if d := cmp.Diff(tc.silent, silent); d != "" {
				t.Errorf("silent (-want +got)\n%s", d)
			}
			switch {
			case tc.err == "" && err != nil:
				t.Error(err)
			case tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)):
				t.Errorf("got %v, want %s", err, tc.err)
			}
		})
	}
}

// A real etcd passes.
func TestCheckVersionsOfEtcd(t *testing.T) {
	if silent, err := CheckVersions(t.Context(), clients["gRPC"]); err != nil || silent != nil {
		t.Errorf("got %v, %v", silent, err)
	}
}

// A member that comes up later, or that is replaced by an older one, is noticed.
func TestWatchVersions(t *testing.T) {
	m := &fakeMember{id: 1, cluster: 7, version: "3.5.13"}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.start(t)}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ticks, log, done := make(chan time.Time), &bytes.Buffer{}, make(chan struct{})
	go func() {
		defer close(done)
		watchVersions(ctx, client, zerolog.New(log), ticks)
	}()
	ticks <- time.Time{}
	ticks <- time.Time{} // taken when the first has been dealt with
	old := (&fakeMember{id: 2, cluster: 7, version: "3.5.7"}).start(t)
	m.mu.Lock()
	m.members = []*etcdserverpb.Member{{ID: 2, ClientURLs: []string{old}}}
	m.mu.Unlock()
	ticks <- time.Time{}
	ticks <- time.Time{}
	cancel()
	<-done
	if n := strings.Count(log.String(), "has version 3.5.7"); n < 1 || n > 3 {
		t.Errorf("it was logged %d times: %s", n, log)
	}
}
