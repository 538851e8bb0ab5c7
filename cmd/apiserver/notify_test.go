package main

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/cmd/apiserver/internal/commands"
)

// systemd hears once that the server is ready, which it then is, and once that it stops.
func TestProcessNotifiesSystemd(t *testing.T) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", socket.LocalAddr().String())
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	if diff := cmp.Diff("READY=1", received(t, socket)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := commands.CheckReady(t.Context(), p.dir, ""); err != nil {
		t.Errorf("when systemd has heard that the server is ready: %v", err)
	}
	p.signal(t, syscall.SIGTERM)
	if diff := cmp.Diff("STOPPING=1\nEXTEND_TIMEOUT_USEC=50000000", received(t, socket)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	<-p.ended
	if p.status != 0 {
		t.Errorf("status %d, want 0:\n%s", p.status, p.stderr)
	}
}

// received returns the next datagram.
func received(t *testing.T, socket *net.UnixConn) string {
	t.Helper()
	datagram := make([]byte, 4096)
	n, err := socket.Read(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return string(datagram[:n])
}

// A socket that is not there is no reason to end.
func TestProcessServesWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	p := startProcess(t, filepath.Join(t.TempDir(), "data"))
	p.awaitReady(t)
	p.stderr.Await(t, `cannot notify systemd`, p.ended)
	if err := commands.CheckReady(t.Context(), p.dir, ""); err != nil {
		t.Error(err)
	}
}
