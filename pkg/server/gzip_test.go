package server

import (
	"bytes"
	"compress/gzip"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// testObject is a finished object.
type testObject struct {
	head, rest string
	derived    []byte
}

func (o *testObject) Finished() (head, rest []byte, err error) {
	return []byte(o.head), []byte(o.rest), nil
}

func (o *testObject) Derived(derive func([]byte) []byte) []byte {
	if o.derived == nil {
		o.derived = derive([]byte(o.rest))
	}
	return o.derived
}

func testStream(t *testing.T, gzip bool) (*jsonStream, *httptest.ResponseRecorder) {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	return newJSONStream(newRecord(w, req), http.StatusOK, gzip), w
}

func TestChecksumsAreCombined(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := randomBytes(random, 3000), randomBytes(random, 3000)
		want := crc32.ChecksumIEEE(append(bytes.Clone(a), b...))
		got := multiply(powerOfX(8*uint64(len(b))), crc32.ChecksumIEEE(a)) ^ crc32.ChecksumIEEE(b)
		if got != want {
			t.Fatalf("%d and %d bytes: %08x, want %08x", len(a), len(b), got, want)
		}
	}
}

func randomBytes(random *rand.Rand, most int) []byte {
	p := make([]byte, random.IntN(most))
	for i := range p {
		p[i] = "0123456789abcdef{}\":,"[random.IntN(21)]
	}
	return p
}

// Whatever parts a stream is made of, compressed or not, small or large, the client reads
// them in their order, and a stored checksum fits.
func TestStreamsArePutTogether(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, compressed := range []bool{true, false} {
		for range 100 {
			j, w := testStream(t, compressed)
			var want bytes.Buffer
			for range random.IntN(40) {
				p := randomBytes(random, []int{1, 50, 3000, 200_000}[random.IntN(4)])
				want.Write(p)
				switch random.IntN(3) {
				case 0:
					j.raw(p)
				case 1:
					j.finished(&testObject{rest: string(p)}, p)
				case 2:
					j.raw(p)
					if err := j.flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := j.end(); err != nil {
				t.Fatal(err)
			}
			got := w.Body.Bytes()
			if compressed {
				got = unzip(t, got)
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("read %d bytes, want %d", len(got), want.Len())
			}
		}
	}
}

func unzip(t *testing.T, data []byte) []byte {
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

// A decoder delivers everything that was flushed, without what follows.
func TestFlushedPartsCanBeRead(t *testing.T) {
	j, w := testStream(t, true)
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 100, 10_000, 300_000} {
		rest := strings.Repeat("x", size)
		j.raw([]byte("<"))
		j.finished(&testObject{rest: rest}, []byte(rest))
		j.raw([]byte(">"))
		if err := j.flush(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size+2)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "<"+rest+">" {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := j.end(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("at the end %d bytes, %v", len(rest), err)
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add([]byte("metadata"), []byte("{}"))
	f.Add([]byte{}, bytes.Repeat([]byte("ab"), 40_000))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		j, w := testStream(t, true)
		j.block(newBlock(a))
		j.raw(b)
		j.block(newBlock(b))
		if err := j.end(); err != nil {
			t.Fatal(err)
		}
		if got, want := unzip(t, w.Body.Bytes()), string(a)+string(b)+string(b); string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	p := []byte(strings.Repeat(`{"ip":"10.0.0.1","nodeName":"node-1"},`, 60))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		newBlock(p)
	}
}

func BenchmarkMultiply(b *testing.B) {
	crc, shift := uint32(0x12345678), powerOfX(8*2000)
	for b.Loop() {
		crc = multiply(shift, crc)
	}
}
