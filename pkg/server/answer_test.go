package server

import (
	"compress/gzip"
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAnswersAreCompressed(t *testing.T) {
	for _, tc := range []struct {
		name, accept string
		annotation   int // bytes
		want         string
	}{
		{"small", "gzip", 1000, ""},
		{"large", "gzip", gzipThreshold, "gzip"},
		{"large, among others", "br, gzip;q=0.5", gzipThreshold, "gzip"},
		{"large, refused", "gzip;q=0", gzipThreshold, ""},
		{"large, not asked for", "", gzipThreshold, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Repeat("x", tc.annotation)
			resource := &fakeResource{get: func(context.Context) (runtime.Object, error) {
				return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"text": text}}}, nil
			}}
			web := httptest.NewServer(newTestServer(t, testConfig(t, resource)))
			defer web.Close()
			req := clientRequest(t, web.URL+testPath+"/a")
			if tc.accept != "" {
				req.Header.Set("Accept-Encoding", tc.accept)
			} else {
				req.Header.Set("Accept-Encoding", "identity")
			}
			resp, err := web.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Encoding"); got != tc.want {
				t.Fatalf("Content-Encoding is %q, want %q", got, tc.want)
			}
			var body io.Reader = resp.Body
			if tc.want != "" {
				if got := resp.Header.Get("Vary"); got != "Accept-Encoding" {
					t.Errorf("Vary is %q", got)
				}
				if body, err = gzip.NewReader(resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			data, err := io.ReadAll(body)
			if err != nil || !strings.Contains(string(data), text) {
				t.Errorf("got %v and %d bytes without the text", err, len(data))
			}
		})
	}
}
