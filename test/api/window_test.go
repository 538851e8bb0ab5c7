package api

import (
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

// An answer whose client gives it no window ends, however small it is and whoever asks.
func TestStreamsWithoutAWindow(t *testing.T) {
	server := startServer(t, apitest.Config{WriteTimeout: 500 * time.Millisecond})
	before := runtime.NumGoroutine()
	config := server.Client.Transport.(*http.Transport).TLSClientConfig
	conn := harness.DialHTTP2(t, server.URL, config, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	requests := [][]string{
		{"/livez"},
		{"/readyz?verbose"},
		{"/version"},
		{"/nothing"},
		{"/api/v1/namespaces"},
		{"/api/v1/namespaces", "x-auth-token", unknownToken},
		{"/api/v1/namespaces", "x-auth-token", apitest.Token},
		{"/api/v1/namespaces/default", "x-auth-token", apitest.Token},
		{"/api/v1/namespaces/missing", "x-auth-token", apitest.Token},
		{"/api/v1/namespaces?watch=1", "x-auth-token", apitest.Token, "accept", "application/yaml"},
		append([]string{"/livez"}, slices.Repeat([]string{"x-large", strings.Repeat("x", 2<<10)}, 40)...), // net/http answers it
	}
	const streams = 200
	open := map[uint32][]string{}
	for i := range uint32(streams) {
		request := requests[int(i)%len(requests)]
		open[2*i+1] = request
		conn.Get(2*i+1, request[0], request[1:]...)
	}
	for len(open) > 0 {
		frame, err := conn.ReadFrame()
		if err != nil {
			t.Fatalf("%v, with %d streams open", err, len(open))
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			delete(open, frame.StreamID)
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				t.Errorf("%s was answered without a body", open[frame.StreamID])
			}
		case *http2.DataFrame:
			t.Errorf("%s got %d bytes", open[frame.StreamID], len(frame.Data()))
		case *http2.GoAwayFrame:
			t.Fatalf("the connection was given up: %v %s", frame.ErrCode, frame.DebugData())
		}
	}
	const ofTheConnection = 10
	eventually(t, "the end of the handlers", func() bool { return runtime.NumGoroutine() < before+ofTheConnection })
}
