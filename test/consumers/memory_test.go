package consumers

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

// TestMemory reports what the server takes with all programs attached at once, which must find the
// same.
func TestMemory(t *testing.T) {
	prometheusProgram.build(t) // or skip
	path, _ := vmagentBinary(t)
	s := startServer(t)
	alone := s.megabytes(t)
	f := newFleet(s.client(t))
	f.registerFirst(t)
	p, v := startPrometheus(t, s), startVmagent(t, s, path)
	startFactory(t, s)
	f.churn(t, 1000)
	f.expectFound(t, "Prometheus", p.found)
	f.expectFound(t, "vmagent", v.found)
	proven.add("all at once", "", fmt.Sprintf("memory of the server: %d MB alone, %d MB with Prometheus, vmagent and %d informers", alone, s.megabytes(t), len(kinds)), nil)
}

var residentLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// megabytes is the resident memory of the server's process.
func (s *server) megabytes(t *testing.T) int {
	t.Helper()
	match := residentLine.FindStringSubmatch(harness.ReadFile(t, filepath.Join("/proc", strconv.Itoa(s.PID), "status")))
	if match == nil {
		t.Skip("there is no VmRSS in /proc")
	}
	kilobytes, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes >> 10
}
