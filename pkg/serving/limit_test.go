package serving

import "testing"

func TestConnectionLimit(t *testing.T) {
	for _, test := range []struct {
		openFiles uint64
		want      int
	}{
		{0, 1}, {3, 1}, {64, 16}, {80, 20}, {100, 36}, {256, 192}, {1024, 768}, {4096, 3072},
		{20_000, 18_976}, {1 << 20, maxConnections}, {1<<64 - 1, maxConnections},
	} {
		if got := connectionLimit(test.openFiles); got != test.want {
			t.Errorf("%d open files: got %d connections, want %d", test.openFiles, got, test.want)
		}
	}
}

func TestOpenFilesLimit(t *testing.T) {
	if limit, err := openFilesLimit(); err != nil || limit < 16 {
		t.Errorf("got %d, %v", limit, err)
	}
}
