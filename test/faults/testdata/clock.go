package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// offset is by how many seconds the wall clock is ahead. It is in memory that a file holds, so that a
// test can change it while the process runs.
var offset = mapOffset()

func mapOffset() *int64 {
	path, found := syscall.Getenv("FAULTS_CLOCK")
	if !found {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("FAULTS_CLOCK: " + err.Error())
	}
	data, err := syscall.Mmap(fd, 0, int(unsafe.Sizeof(int64(0))), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("FAULTS_CLOCK: " + err.Error())
	}
	closefd(uintptr(fd))
	return (*int64)(unsafe.Pointer(unsafe.SliceData(data)))
}

// shiftedNow is runtimeNow with the wall clock shifted. The monotonic clock goes on as it did, as it
// does when somebody sets a machine's clock.
func shiftedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	return sec + atomic.LoadInt64(offset), nsec, mono
}
