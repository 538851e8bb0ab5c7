package serving

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/berth-project/berth/test/harness"
)

// A connection of HTTP/2 that takes nothing is closed, however lively its client is otherwise.
func TestConnectionsThatTakeNothingAreClosed(t *testing.T) {
	before := writeByteTimeout
	writeByteTimeout = 200 * time.Millisecond
	t.Cleanup(func() { writeByteTimeout = before })
	ended := make(chan struct{})
	s, err := New(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		for err := error(nil); err == nil; {
			_, err = w.Write(make([]byte, 1<<20))
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	certificate, l := selfSigned(t), listen(t)
	s.ServeTLS(l, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx, func() {}); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
	const most = 1<<31 - 1
	conn := harness.DialHTTP2(t, "https://"+l.Addr().String(), &tls.Config{InsecureSkipVerify: true}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: most})
	if err := conn.WriteWindowUpdate(0, most-(1<<16-1)); err != nil {
		t.Fatal(err)
	}
	conn.Get(1, "/")
	lively := time.NewTicker(writeByteTimeout / 20)
	defer lively.Stop()
	for deadline := time.After(patience); ; {
		select {
		case <-ended:
			return
		case <-deadline:
			t.Fatal("the handler goes on")
		case <-lively.C:
			_ = conn.WritePing(false, [8]byte{}) // until the connection is closed
		}
	}
}
