package serving

import (
	"fmt"
	"math"
	"syscall"
)

const (
	// maxConnections bounds the memory of connections if the limit on open files does not:
	// an idle one with TLS takes some 40 KB. It leaves room for twice the watches that the
	// server allows, each on its own connection.
	maxConnections = 40_000

	// The reserve is for files other than connections from clients: the log and database of
	// an embedded etcd, connections to an external one, watched files, listeners. Some
	// thirty are open when the server is idle; a log with many large objects has one more
	// for each 64 MB until etcd's next snapshot.
	minReserve, maxReserve = 64, 1024

	// lowOpenFiles is the limit on open files below which the operator is warned.
	lowOpenFiles = 4096
)

// openFilesLimit returns how many files this process may open. That is its hard limit, to
// which Go raises the soft limit when a program starts.
func openFilesLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	return limit.Cur, nil
}

// connectionLimit returns the maximum number of connections with a limit of openFiles open
// files. A quarter of the files is reserved, within the bounds above; if the limit is very
// low, a quarter is left for connections.
func connectionLimit(openFiles uint64) int {
	files := int(min(openFiles, math.MaxInt32))
	reserve := min(max(files/4, minReserve), maxReserve)
	return min(max(files-reserve, files/4, 1), maxConnections)
}
