package server

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"sync"

	"github.com/klauspost/compress/flate"
)

// A gzip stream (RFC 1952) is a header, blocks of deflate (RFC 1951), and a checksum of
// everything. Blocks that begin with an empty window and end at a full byte can be put
// together in any order, and the checksum of the whole can be computed from theirs. So an
// object is compressed once, for all the lists and events that it is in.

var (
	gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	// emptyStored is a stored block without content, after which decoders have delivered
	// everything before it.
	emptyStored = []byte{0, 0, 0, 0xff, 0xff}
)

// maxStored is the most that a stored block can hold.
const maxStored = 1<<16 - 1

// setGzip says in a header that the answer is compressed.
func setGzip(header http.Header) {
	header.Set("Content-Encoding", "gzip")
	header.Add("Vary", "Accept-Encoding")
}

const (
	// blockHead is what stands before a block: the checksum and the size of its content and
	// the factor by which it moves the checksum of what precedes it.
	blockHead = 12
	// thoroughFrom is the size from which on better compression costs hardly more.
	thoroughFrom = 16 << 10
)

// deflater compresses one block after the other.
type deflater struct {
	writer *flate.Writer
	out    bytes.Buffer
}

// deflaters are pools of *deflater: of fast and of thorough ones.
var deflaters = [2]sync.Pool{{New: newDeflater(1)}, {New: newDeflater(6)}}

func newDeflater(level int) func() any {
	return func() any {
		w, err := flate.NewWriter(nil, level)
		if err != nil {
			panic(err) // the levels exist
		}
		return &deflater{writer: w}
	}
}

// newBlock compresses p into a block that can stand in any stream.
func newBlock(p []byte) []byte {
	pool := &deflaters[0]
	if len(p) >= thoroughFrom {
		pool = &deflaters[1]
	}
	d := pool.Get().(*deflater)
	defer pool.Put(d)
	d.out.Reset()
	d.out.Write(make([]byte, blockHead))
	d.writer.Reset(&d.out)
	_, _ = d.writer.Write(p) // a buffer takes everything
	_ = d.writer.Flush()
	b := bytes.Clone(d.out.Bytes())
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(p))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(p)))
	binary.LittleEndian.PutUint32(b[8:], powerOfX(8*uint64(len(p))))
	return b
}

func splitBlock(b []byte) (crc, size, shift uint32, data []byte) {
	return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), b[blockHead:]
}

// The checksum is the remainder of a division of polynomials over GF(2) by crc32.IEEE, with
// the coefficient of x⁰ in the highest bit. To append n bytes to what has the checksum c is
// to multiply c by x⁸ⁿ and to add the checksum of the n bytes.

// multiply returns a·b.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.IEEE&-(b&1)
	}
	return product
}

// powerOfX returns xⁿ.
func powerOfX(n uint64) uint32 {
	result, square := uint32(1<<31), uint32(1<<30) // 1 and x
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = multiply(square, result)
		}
		square = multiply(square, square)
	}
	return result
}
