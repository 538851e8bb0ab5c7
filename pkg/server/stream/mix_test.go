package stream_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

// text is bytes that compress somewhat, as JSON does.
var text = sync.OnceValue(func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = `0123456789abcdef{}":,`[random.IntN(21)]
	}
	return p
})

// content returns n bytes, at most 1 MiB. They must not be changed.
func content(n int) []byte { return text()[:n] }

func unzip(t testing.TB, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A writer to memory writes the bytes alone.
func TestTo(t *testing.T) {
	for _, size := range sizes() {
		var out bytes.Buffer
		w := stream.To(&out)
		w.Expect(size)
		_, _ = w.Write(content(size))
		if err := w.Flush(); err != nil || out.Len() != size {
			t.Errorf("%d bytes: %d are flushed, %v", size, out.Len(), err)
		}
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), content(size)) {
			t.Errorf("%d bytes: got %d, %v", size, out.Len(), err)
		}
		w.Release()
	}
}

// Whatever pieces a body is written in, compressed ones among them, it unpacks to the same.
func TestMixes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, accepts := range []bool{true, false} {
		for range 30 {
			recorder := httptest.NewRecorder()
			w := stream.New(recorder, http.StatusOK, accepts)
			var want bytes.Buffer
			compressed := w.Expect([]int{stream.Unbounded, stream.Threshold + 1}[random.IntN(2)])
			for range random.IntN(30) {
				p := text()[random.IntN(1<<19):]
				p = p[:random.IntN([]int{2, 600, 3000, 70_000, 200_000}[random.IntN(5)])]
				want.Write(p)
				mix(t, w, p, random.IntN(5), compressed)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			w.Release()
			got := recorder.Body.Bytes()
			if accepts {
				got = unzip(t, got)
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("gzip %v: read %d bytes, want %d", accepts, len(got), want.Len())
			}
		}
	}
}

func mix(t *testing.T, w *stream.Writer, p []byte, how int, compressed bool) {
	t.Helper()
	switch {
	case how < 2 && compressed:
		w.Block(object.Compress(p))
	case how == 2:
		w.WriteString(string(p))
	default:
		_, _ = w.Write(p)
	}
	if how == 4 {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte("metadata"), []byte("{}"), uint16(0))
	f.Add([]byte{}, bytes.Repeat([]byte("ab"), 40_000), uint16(0x5555))
	f.Add([]byte(strings.Repeat("x", 600)), []byte("y"), uint16(0xffff))
	f.Fuzz(func(t *testing.T, a, b []byte, plan uint16) {
		recorder := httptest.NewRecorder()
		w := stream.New(recorder, http.StatusOK, true)
		defer w.Release()
		w.Expect(stream.Unbounded)
		var want []byte
		for ; plan > 0; plan >>= 3 {
			p := a
			if plan&1 != 0 {
				p = b
			}
			want = append(want, p...)
			if plan&2 != 0 {
				w.Block(object.Compress(p))
			} else {
				_, _ = w.Write(p)
			}
			if plan&4 != 0 {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := unzip(t, recorder.Body.Bytes()); !bytes.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
