package layer

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// The on-disk format of EROFS, as far as an index uses it: Linux's
// fs/erofs/erofs_fs.h. All numbers are little endian. docs/format/layer.md
// says which of the format's choices an index makes.

const (
	blockShift = 9
	blockSize  = 1 << blockShift

	erofsMagic  = 0xe0f5e1e2
	superOffset = 1024
	superSize   = 128
	slotOffset  = superOffset + superSize // of the one extra device
	slotSize    = 128
	metaOffset  = superOffset + blockSize // where the first inode is

	nidShift   = 5 // an inode is named by its place in units of 32 bytes
	inodeSize  = 64
	direntSize = 12
	xattrHead  = 12
	chunkSize  = 8 // of an entry in a list of chunks

	compatChecksum = 0x1
	compatMtime    = 0x2
	incompatChunks = 0x4
	incompatDevice = 0x8

	layoutPlain  = 0
	layoutInline = 2
	layoutChunks = 4
	extended     = 1 // bit of i_format: the inode has 64 bytes

	chunkIndexes = 0x20 // the list of chunks has entries of 8 bytes
	chunkBits    = 0x1f

	nullBlock = 1<<32 - 1 // a hole

	// maxXattrs is the space for attributes of an inode, without the header
	// and what marks an opaque directory and one that holds whiteouts.
	maxXattrs = 4*(1<<16-2) - 64

	opaqueXattr = "trusted.overlay.opaque"

	// originXattr, without a value, makes overlayfs look for whiteouts in a
	// directory that it merges with no other. Else it lists them there as
	// files that can't be opened.
	originXattr = "trusted.overlay.origin"

	// impliedXattr marks a directory that is no member of the tar. It has a
	// name that overlayfs neither shows nor copies to an upper directory.
	impliedXattr = "trusted.overlay.shale.implied"
)

// volume is in the super block of each index. The number changes with the
// format; indexes of another are made again.
const volume = "shale index 2"

// impliesMark follows in the name of a volume that has an implied directory
// other than the root, so that who opens an index knows it without a search.
const impliesMark = " +"

// xattrPrefixes are the beginnings of names that have a number.
var xattrPrefixes = [...]string{
	1: "user.",
	2: "system.posix_acl_access",
	3: "system.posix_acl_default",
	4: "trusted.",
	6: "security.",
}

// appendXattr appends an attribute as it stands behind its inode. One with a
// name space that EROFS doesn't know gets number 0, which the kernel hides.
func appendXattr(b []byte, name, value string) []byte {
	number, rest := 0, name
	for i, prefix := range xattrPrefixes {
		whole := i == 2 || i == 3
		if prefix != "" && strings.HasPrefix(name, prefix) && (!whole || name == prefix) {
			number, rest = i, name[len(prefix):]
		}
	}
	b = append(b, byte(len(rest)), byte(number))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	b = append(append(b, rest...), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// fileType returns the type in a directory entry.
func fileType(mode uint16) byte {
	switch mode & typeMask {
	case typeRegular:
		return 1
	case typeDir:
		return 2
	case typeChar:
		return 3
	case typeBlock:
		return 4
	case typeFifo:
		return 5
	case typeSymlink:
		return 7
	}
	return 0
}

// superBlock is what an index says about itself.
type superBlock struct {
	root      uint16
	inodes    uint64
	blocks    uint32
	tarBlocks uint32
	uuid      [16]byte
	implies   bool
}

// encode returns the block that holds super block and device slot.
func (s *superBlock) encode() []byte {
	b := make([]byte, blockSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], erofsMagic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = blockShift
	le.PutUint16(b[14:], s.root)
	le.PutUint64(b[16:], s.inodes)
	le.PutUint32(b[36:], s.blocks)
	copy(b[48:64], s.uuid[:])
	name := volume
	if s.implies {
		name += impliesMark
	}
	copy(b[64:80], name)
	le.PutUint32(b[80:], incompatChunks|incompatDevice)
	le.PutUint16(b[86:], 1) // extra devices
	le.PutUint16(b[88:], slotOffset/slotSize)
	le.PutUint32(b[superSize+64:], s.tarBlocks)
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
