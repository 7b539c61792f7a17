package layer

import (
	"archive/tar"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
)

// member is one file as a tar tells of it: all headers that belong together
// are already merged, and nothing has been checked that needs to know about
// other members.
type member struct {
	name, link string
	kind       byte   // one of archive/tar's Type constants; TypeReg for all regular files
	mode       uint32 // 07777
	uid, gid   int64
	mtime      int64 // seconds since 1970
	nsec       uint32
	major      int64
	minor      int64
	xattrs     map[string]string

	size   int64     // bytes of the file
	offset int64     // where its content begins in the tar
	stored int64     // bytes of content in the tar
	sparse []segment // where they belong in the file; only if isSparse
	holes  bool      // the file is sparse
}

// segment is a run of bytes of a sparse file that is stored in the tar.
type segment struct{ off, size int64 }

// refuse returns the error for a member that is at fault.
func refuse(name, format string, args ...any) error {
	return fmt.Errorf("member %q: %s: %w", name, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// A tar consists of records of this many bytes.
const recordSize = 512

// Magic values of the formats, bytes 257 to 265 of a header.
const (
	magicPOSIX = "ustar\x00"
	magicGNU   = "ustar  \x00"
	magicSTAR  = "tar\x00" // bytes 508 to 512
)

type format int

const (
	formatV7 format = iota
	formatUSTAR
	formatSTAR
	formatGNU
)

func formatOf(rec []byte) format {
	switch {
	case string(rec[257:263]) == magicPOSIX && string(rec[508:512]) == magicSTAR:
		return formatSTAR
	case string(rec[257:263]) == magicPOSIX:
		return formatUSTAR
	case string(rec[257:265]) == magicGNU:
		return formatGNU
	}
	return formatV7
}

// decodeHeader reads one header record. What it leaves open is stored, which
// for most types is 0 whatever the size field says.
func decodeHeader(rec []byte) (*member, format, error) {
	if !checksumFits(rec) {
		return nil, 0, fmt.Errorf("bad checksum")
	}
	f := formatOf(rec)
	var d decoder
	m := &member{
		name:   cString(rec[0:100]),
		mode:   uint32(d.number(rec[100:108])) & 0o7777,
		uid:    d.number(rec[108:116]),
		gid:    d.number(rec[116:124]),
		stored: d.number(rec[124:136]),
		mtime:  d.number(rec[136:148]),
		kind:   rec[156],
		link:   cString(rec[157:257]),
	}
	var prefix string
	if f > formatV7 {
		m.major, m.minor = d.number(rec[329:337]), d.number(rec[337:345])
	}
	switch f {
	case formatUSTAR:
		prefix = cString(rec[345:500])
	case formatSTAR:
		prefix = cString(rec[345:476])
	case formatGNU:
		// Writers of before Go 1.8 put a prefix where GNU has two times.
		var times decoder
		times.number(rec[345:357])
		times.number(rec[357:369])
		if times.err != nil {
			prefix = cString(rec[345:500])
		}
	}
	if prefix != "" {
		m.name = prefix + "/" + m.name
	}
	if d.err != nil {
		return m, f, d.err
	}
	if m.stored < 0 {
		return m, f, fmt.Errorf("negative size")
	}
	return m, f, nil
}

// checksumFits compares the sum of all bytes, the checksum itself taken as
// spaces. Some old tars summed signed bytes.
func checksumFits(rec []byte) bool {
	var d decoder
	want := d.number(rec[148:156])
	if d.err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range rec {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// decoder reads numeric fields and keeps the first error.
type decoder struct{ err error }

// number reads an octal number, or GNU's base 256, which has the highest bit
// of the field set.
func (d *decoder) number(b []byte) int64 {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return d.base256(b)
	}
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(cString(b), 8, 64)
	if err != nil {
		d.fail("bad number %q", b)
	}
	return n
}

func (d *decoder) base256(b []byte) int64 {
	var invert byte // negative numbers are in two's complement
	if b[0]&0x40 != 0 {
		invert = 0xff
	}
	var n uint64
	for i, c := range b {
		c ^= invert
		if i == 0 {
			c &= 0x7f
		}
		if n>>56 != 0 {
			d.fail("number of more than 64 bits")
			return 0
		}
		n = n<<8 | uint64(c)
	}
	if n>>63 != 0 {
		d.fail("number of more than 64 bits")
		return 0
	}
	if invert != 0 {
		return int64(^n)
	}
	return int64(n)
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// hasContent says whether a type is followed by content. The others may have
// a size, of which POSIX says that it means nothing.
func hasContent(kind byte) bool {
	switch kind {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return false
	}
	return true
}
