package faults

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overlayClock has all that is built from now on read a wall clock that shift sets: Linux has one for
// all processes. It replaces package time of the toolchain in use by one whose time.Now adds an offset;
// dir is for what the compiler reads.
func overlayClock(dir string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	folder := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return err
	}
	const is, becomes = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := shiftedNow()\n"
	if strings.Count(string(source), is) != 1 {
		return fmt.Errorf("%s: time.Now does not begin with %q, so its clock cannot be shifted", folder, is)
	}
	edited := filepath.Join(dir, "time.go")
	if err := os.WriteFile(edited, []byte(strings.Replace(string(source), is, becomes, 1)), 0o600); err != nil {
		return err
	}
	added, err := filepath.Abs(filepath.Join("testdata", "clock.go"))
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(folder, "time.go"): edited, filepath.Join(folder, "clock.go"): added,
	}})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return err
	}
	return os.Setenv("GOFLAGS", os.Getenv("GOFLAGS")+" -overlay="+path)
}

func canShift() bool { return *clocks }

// makeClock makes the file that has by how much the clock of the process is ahead.
func (p *process) makeClock() error {
	p.clock = filepath.Join(p.dir, p.name+".clock")
	return os.WriteFile(p.clock, make([]byte, 8), 0o600)
}

// shift sets the clock of a process ahead by some time, 0 for the right one. The process may not run.
func (p *process) shift(t *testing.T, ahead time.Duration) {
	t.Helper()
	file, err := os.OpenFile(p.clock, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)), 0); err != nil {
		t.Fatal(err)
	}
}

// awaitClock waits until the process answers, over a connection of its own, with the time that it must
// have.
func awaitClock(t *testing.T, client *http.Client, url string, ahead time.Duration) {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if own, ok := client.Transport.(*http.Transport); ok {
		transport = own.Clone()
	}
	transport.DisableKeepAlives = true
	await(t, fmt.Sprintf("%s has a clock that is %v ahead", url, ahead), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if off := date.Sub(time.Now().Add(ahead)); err == nil && off.Abs() > patience {
			err = fmt.Errorf("it has %v", date)
		}
		return err
	})
}

// aWayOff is an hour ahead or behind.
func aWayOff(random *rand.Rand) time.Duration {
	return []time.Duration{time.Hour, -time.Hour}[random.IntN(2)]
}

// shiftReplicas shifts the clocks of servers, each by itself, and has them start again if restart says so.
func shiftReplicas(t *testing.T, random *rand.Rand, restart bool, all ...*replica) func() {
	t.Helper()
	for _, r := range all {
		ahead := aWayOff(random)
		r.shift(t, ahead)
		if restart {
			r.kill()
			r.start(t)
		}
		awaitClock(t, r.http, r.url+"/livez", ahead)
	}
	return func() {
		for _, r := range all {
			r.shift(t, 0)
			awaitClock(t, r.http, r.url+"/livez", 0)
		}
	}
}

// shiftMember is shiftReplicas for a member.
func shiftMember(t *testing.T, random *rand.Rand, restart bool, m *member) func() {
	t.Helper()
	ahead := aWayOff(random)
	m.shift(t, ahead)
	if restart {
		m.kill()
		m.start(t)
	}
	awaitClock(t, http.DefaultClient, "http://"+m.client+"/version", ahead)
	return func() {
		m.shift(t, 0)
		awaitClock(t, http.DefaultClient, "http://"+m.client+"/version", 0)
	}
}

// shiftSingle is shiftReplicas for a server with an embedded etcd. One that starts again makes its
// certificate anew, by its own clock, which clients with the right one must find valid.
func shiftSingle(t *testing.T, random *rand.Rand, restart bool, s *single) func() {
	t.Helper()
	ahead := aWayOff(random)
	s.shift(t, ahead)
	if restart {
		s.kill()
		for _, name := range []string{"apiserver.crt", "apiserver.key"} {
			if err := os.Remove(filepath.Join(s.dir, "berth.data", "pki", name)); err != nil {
				t.Fatal(err)
			}
		}
		s.start(t)
	}
	awaitClock(t, s.http, s.url+"/livez", ahead)
	return func() {
		s.shift(t, 0)
		awaitClock(t, s.http, s.url+"/livez", 0)
	}
}

var clockKinds = []kind[*cluster]{
	{name: "shift the clock of a server", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftReplicas(t, random, false, c.anyReplica(random))
	}},
	{name: "shift the clocks of all servers", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftReplicas(t, random, false, c.replicas...)
	}},
	{name: "restart a server with a shifted clock", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftReplicas(t, random, true, c.anyReplica(random))
	}},
	{name: "shift the clock of a member", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftMember(t, random, false, c.anyMember(random))
	}},
	{name: "shift the clock of the leader", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftMember(t, random, false, c.leader(t))
	}},
	{name: "restart a member with a shifted clock", needs: canShift, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return shiftMember(t, random, true, c.anyMember(random))
	}},
}

var singleClockKinds = []kind[*single]{
	{name: "shift the clock of the embedded server", needs: canShift, inject: func(t *testing.T, s *single, random *rand.Rand) func() {
		return shiftSingle(t, random, false, s)
	}},
	{name: "restart the embedded server with a shifted clock", needs: canShift, inject: func(t *testing.T, s *single, random *rand.Rand) func() {
		return shiftSingle(t, random, true, s)
	}},
}
