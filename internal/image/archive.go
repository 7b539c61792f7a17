package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// Limits of an image archive. Its documents are held in memory until the
// whole of it has been read.
const (
	maxArchiveDocuments = 64 << 20 // bytes
	maxArchiveMembers   = 100_000
)

// archive is what one pass over an image archive has found: its documents,
// and its layers, which are in the store already and referred to by nothing.
type archive struct {
	images *Images
	lease  *store.Lease
	tell   progress.Sink

	members   int
	documents map[string][]byte
	layers    map[string]archivedLayer
	links     map[string]string // docker-archive links layers that are the same

	size int64           // of all documents, in bytes
	made []digest.Digest // layers that were taken in
}

// archivedLayer is a member that holds a layer, or seemed to.
type archivedLayer struct {
	blob   digest.Digest // of the member as it is, compressed or not
	size   int64         // of the member, in bytes
	diffID digest.Digest
	err    error // why it is no layer after all
}

// readArchive reads an archive to its end. A member whose name leaves the
// archive, a link where a blob should be, a device, or a blob that is not what
// its name says is an [errdefs.ErrInvalidArgument].
func (i *Images) readArchive(ctx context.Context, l *store.Lease, r io.Reader, tell progress.Sink) (*archive, error) {
	a := &archive{
		images: i, lease: l, tell: tell,
		documents: make(map[string][]byte),
		layers:    make(map[string]archivedLayer),
		links:     make(map[string]string),
	}
	plain, _, err := layer.Decompress(cancelable{ctx, r})
	if err != nil {
		return a, err
	}
	defer plain.Close()
	members := tar.NewReader(plain)
	for {
		h, err := members.Next()
		switch {
		case errors.Is(err, io.EOF) && a.members > 0:
			return a, nil
		case errors.Is(err, io.EOF), a.members == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
			return a, malformed("not an image archive")
		case errors.Is(err, tar.ErrHeader):
			return a, malformed("damaged archive: %s", err)
		case err != nil:
			return a, fmt.Errorf("read archive: %w", cut(err))
		}
		if err := a.member(ctx, h, members); err != nil {
			return a, fmt.Errorf("archive member %.200q: %w", h.Name, cut(err))
		}
	}
}

// cut gives a truncated stream its class.
func cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errdefs.ErrDataLoss, err)
	}
	return err
}

func (a *archive) member(ctx context.Context, h *tar.Header, r io.Reader) error {
	if a.members++; a.members > maxArchiveMembers {
		return malformed("archive has more than %d members", maxArchiveMembers)
	}
	name, err := memberName(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		return a.link(name, h)
	default:
		return malformed("neither a file nor a directory")
	}
	if a.knows(name) {
		return malformed("appears twice")
	}
	return a.file(ctx, name, h.Size, r)
}

// memberName is a name within the archive: relative, without "." and "..".
func memberName(name string) (string, error) {
	if path.IsAbs(name) {
		return "", malformed("absolute name")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", malformed("name leaves the archive")
		}
	}
	return path.Clean(name), nil
}

// link notes that a member is another one. Old docker-archives do that with
// layers; a blob of an OCI layout is never a link.
func (a *archive) link(name string, h *tar.Header) error {
	if strings.HasPrefix(name, "blobs/") {
		return malformed("a blob can't be a link")
	}
	target := h.Linkname
	if h.Typeflag == tar.TypeSymlink {
		if path.IsAbs(target) {
			return malformed("link leaves the archive")
		}
		target = path.Join(path.Dir(name), target)
	}
	target = path.Clean(target)
	if path.IsAbs(target) || target == ".." || strings.HasPrefix(target, "../") {
		return malformed("link leaves the archive")
	}
	if a.knows(name) {
		return malformed("appears twice")
	}
	a.links[name] = target
	return nil
}

func (a *archive) knows(name string) bool {
	_, isDocument := a.documents[name]
	_, isLayer := a.layers[name]
	_, isLink := a.links[name]
	return isDocument || isLayer || isLink
}

// file takes a member in: as a layer if it looks like one, else as a document
// if it is small. What is neither is remembered by its digest only.
func (a *archive) file(ctx context.Context, name string, size int64, r io.Reader) error {
	raw := &hashed{r: r, hash: sha256.New()}
	in := bufio.NewReaderSize(raw, 64<<10)
	head, err := in.Peek(int(min(size, 512)))
	if err != nil {
		return err
	}
	var l archivedLayer
	switch {
	case looksLikeLayer(head):
		raw.off = isTarHeader(head) // then the DiffID is its digest, too
		l.diffID, l.err = a.layer(ctx, in)
		if l.err != nil && !errdefs.IsInvalidArgument(l.err) && !errors.Is(l.err, io.ErrUnexpectedEOF) {
			return l.err
		}
	case size <= maxDocument:
		data, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		if a.size += size; a.size > maxArchiveDocuments {
			return malformed("archive has more than %d bytes of documents", maxArchiveDocuments)
		}
		a.documents[name] = data
		return blobName(name, digest.FromBytes(data))
	default:
		l.err = malformed("not a layer")
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	l.blob, l.size = l.diffID, size
	if !raw.off {
		l.blob = raw.digest()
	}
	a.layers[name] = l
	if l.diffID != "" {
		a.tell.Emit(progress.Event{ID: short(l.diffID), Action: "Loading layer", Current: size, Total: size})
	}
	if l.blob == "" { // no tar after all: an error if somebody wants it
		return nil
	}
	return blobName(name, l.blob)
}

// layer takes in a layer of unknown digest.
func (a *archive) layer(ctx context.Context, r io.Reader) (digest.Digest, error) {
	diffID, err := a.images.importLayer(ctx, a.lease, r)
	if err == nil {
		a.made = append(a.made, diffID)
	}
	return diffID, err
}

// blobName says whether a member of an OCI layout is what its name says.
func blobName(name string, d digest.Digest) error {
	hex, ok := strings.CutPrefix(name, "blobs/sha256/")
	if ok && hex != d.Encoded() {
		return malformed("content has digest %s", d)
	}
	return nil
}

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

// document returns the document of that name.
func (a *archive) document(name string) ([]byte, bool) {
	data, ok := a.documents[path.Clean(name)]
	return data, ok
}

// blob returns the document with digest d of an OCI layout.
func (a *archive) blob(d digest.Digest) ([]byte, bool) { return a.document(blobPath(d)) }

// find returns the layer of that name, through links.
func (a *archive) find(name string) (archivedLayer, error) {
	name = path.Clean(name)
	for range 8 {
		if l, ok := a.layers[name]; ok {
			if l.err != nil {
				return l, fmt.Errorf("layer %.200q: %w", name, l.err)
			}
			return l, nil
		}
		target, ok := a.links[name]
		if !ok {
			break
		}
		name = target
	}
	return archivedLayer{}, malformed("the archive has no layer %.200q", name)
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
