package image

import (
	"bytes"
	"encoding/hex"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// looksLikeLayer says whether a member begins like a tar or like something
// compressed.
func looksLikeLayer(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return isTarHeader(head)
}

// isTarHeader checks the sum of a header (POSIX.1-1988, ustar). A block of
// zeros is the end of an empty tar.
func isTarHeader(block []byte) bool {
	if len(block) < 512 {
		return false
	}
	var sum, zero int64
	for n, b := range block {
		zero |= int64(b)
		if n >= 148 && n < 156 {
			b = ' ' // the field of the sum itself
		}
		sum += int64(b)
	}
	if zero == 0 {
		return true
	}
	want, err := strconv.ParseInt(strings.Trim(string(block[148:156]), " \x00"), 8, 64)
	return err == nil && want == sum
}

// hashed is a reader that knows the digest of what was read, until it is
// switched off.
type hashed struct {
	r    io.Reader
	hash hash.Hash
	off  bool
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if !h.off {
		h.hash.Write(p[:n])
	}
	return n, err
}

func (h *hashed) digest() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.hash.Sum(nil)))
}
