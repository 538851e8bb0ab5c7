package serving

import (
	"fmt"
	"syscall"
)

const (
	// maxConnections bounds the memory of connections where the limit of open files does not:
	// an idle one with TLS takes some 40 KB. It leaves room for twice the watches that the
	// server allows, each on a connection of its own.
	maxConnections = 40_000

	// Files that are not for connections: the log and the database of an embedded etcd, the
	// connections to another one, the files that are watched, listeners. Some thirty are
	// open when the server is idle; a log with many large objects has one more for each
	// 64 MB until etcd's next snapshot.
	minReserve, maxReserve = 64, 1024

	// lowOpenFiles is a limit of open files below which an operator should know of it.
	lowOpenFiles = 4096
)

// openFilesLimit returns how many files this process may open. That is its hard limit: Go
// raises the soft one to it at the start of every program.
func openFilesLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	return limit.Cur, nil
}

// connectionLimit returns how many connections to hold at most where openFiles files may be
// open: a quarter of the files stays in reserve, within the bounds above, and a very low
// limit leaves a quarter for connections.
func connectionLimit(openFiles uint64) int {
	reserve := min(max(openFiles/4, minReserve), maxReserve)
	limit := max(openFiles/4, 1)
	if openFiles > reserve {
		limit = max(limit, openFiles-reserve)
	}
	return int(min(limit, maxConnections)) //nolint:gosec // at most maxConnections
}
