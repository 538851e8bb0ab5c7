package consumers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSkeleton(t *testing.T) {
	s := startServer(t)
	c := s.client(t)
	must[any](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", port{"metrics", 9100}), metav1.CreateOptions{}))
	s.crash(t)
	must[any](t, "create")(c.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{}))
	_ = newEndpoints
	_ = newSlice
	_ = httpClient
	_ = eventually
	_ = start
	_ = program.build
	_ = s.tokenFile() + s.caFile()
	proven.add("a", "b", "c", nil)
}
