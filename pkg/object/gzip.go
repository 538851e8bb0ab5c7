package object

import (
	"bytes"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/flate"
)

// A gzip stream (RFC 1952) is a header, blocks of deflate (RFC 1951), and a checksum of
// everything. Blocks that begin with an empty window and end at a full byte can be put
// together in any order, and the checksum of the whole can be computed from theirs. So an
// object is compressed once, for all the lists and events that it is in.

// Block is compressed bytes that can stand in any gzip stream.
type Block struct {
	Data []byte
	CRC  uint32 // of the content
	Size uint32 // of the content, in bytes
	// shift moves the checksum of what precedes the block.
	shift uint32
}

// Extend returns the checksum of a stream with checksum crc after the block was appended.
func (b *Block) Extend(crc uint32) uint32 { return multiply(b.shift, crc) ^ b.CRC }

// thoroughFrom is the size in bytes from which better compression costs hardly more.
const thoroughFrom = 16 << 10

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

// Compress returns p as a block.
func Compress(p []byte) *Block {
	pool := &deflaters[0]
	if len(p) >= thoroughFrom {
		pool = &deflaters[1]
	}
	d := pool.Get().(*deflater)
	defer pool.Put(d)
	d.out.Reset()
	d.writer.Reset(&d.out)
	_, _ = d.writer.Write(p) // a buffer takes everything
	_ = d.writer.Flush()
	return &Block{
		Data: bytes.Clone(d.out.Bytes()), CRC: crc32.ChecksumIEEE(p), Size: uint32(len(p)), shift: powerOfX(8 * uint64(len(p))),
	}
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
