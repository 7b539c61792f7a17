package image

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

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
	links     map[string]string // docker-archive links layers that are the same
	size      int64             // of all documents, in bytes

	// A layer is synced while the next one is read. Until commits is done
	// the fields below are shared.
	commits errgroup.Group
	mu      sync.Mutex
	layers  map[string]archivedLayer
	made    []digest.Digest // layers that were taken in
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
	a.commits.SetLimit(4)
	err := a.read(ctx, r)
	return a, cmp.Or(err, a.commits.Wait())
}

func (a *archive) read(ctx context.Context, r io.Reader) error {
	plain, _, err := layer.Decompress(cancelable{ctx, r})
	if err != nil {
		return err
	}
	defer plain.Close()
	members := tar.NewReader(plain)
	for {
		h, err := members.Next()
		switch {
		case errors.Is(err, io.EOF) && a.members > 0:
			return nil
		case errors.Is(err, io.EOF), a.members == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
			return malformed("not an image archive")
		case errors.Is(err, tar.ErrHeader):
			return malformed("damaged archive: %s", err)
		case err != nil:
			return fmt.Errorf("read archive: %w", cut(err))
		}
		if err := a.member(ctx, h, members); err != nil {
			return fmt.Errorf("archive member %.200q: %w", h.Name, cut(err))
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
	a.mu.Lock()
	defer a.mu.Unlock()
	_, isDocument := a.documents[name]
	_, isLayer := a.layers[name]
	_, isLink := a.links[name]
	return isDocument || isLayer || isLink
}

// file takes a member in: as a layer if it looks like one, else as a document
// if it is small. What is neither is remembered by its digest only.
func (a *archive) file(ctx context.Context, name string, size int64, r io.Reader) error {
	raw := &hashed{r: r, hash: sha256.New()}
	content := bufio.NewReaderSize(raw, 64<<10)
	head, err := content.Peek(int(min(size, 512)))
	if err != nil {
		return err
	}
	var in *store.LayerIngest
	var bad error
	switch {
	case looksLikeLayer(head):
		raw.off = isTarHeader(head) // then the DiffID is its digest, too
		if in, bad = a.layer(ctx, content); bad != nil && !errdefs.IsInvalidArgument(bad) && !errors.Is(bad, io.ErrUnexpectedEOF) {
			return bad
		}
	case size <= maxDocument:
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		if a.size += size; a.size > maxArchiveDocuments {
			return malformed("archive has more than %d bytes of documents", maxArchiveDocuments)
		}
		a.documents[name] = data
		return blobName(name, digest.FromBytes(data))
	default:
		bad = malformed("not a layer")
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	l := archivedLayer{size: size, err: bad}
	if !raw.off {
		l.blob = raw.digest()
		if err := blobName(name, l.blob); err != nil {
			return err
		}
	}
	a.settle(name, l)
	if in != nil {
		a.commits.Go(func() error { return a.commit(ctx, in, name, l) })
	}
	return nil
}

// layer writes a layer of unknown digest to the store. What comes back is to
// be committed.
func (a *archive) layer(ctx context.Context, r io.Reader) (*store.LayerIngest, error) {
	tar, _, err := layer.Decompress(cancelable{ctx, r})
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	in, err := a.images.Store.IngestLayer(a.lease)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(in, tar); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// commit makes a layer visible and settles what the member is. A layer that
// can't be one is an error only if somebody wants it.
func (a *archive) commit(ctx context.Context, in *store.LayerIngest, name string, l archivedLayer) error {
	diffID, _, err := in.Commit(ctx, "")
	cerr := in.Close()
	switch {
	case errdefs.IsInvalidArgument(err):
		l.err = err
	case err != nil || cerr != nil:
		return fmt.Errorf("archive member %.200q: %w", name, cmp.Or(err, cerr))
	default:
		l.diffID = diffID
		if l.blob == "" {
			l.blob = diffID
			if err := blobName(name, l.blob); err != nil {
				return fmt.Errorf("archive member %.200q: %w", name, err)
			}
		}
		a.tell.Emit(progress.Event{ID: short(diffID), Action: "Loading layer", Current: l.size, Total: l.size})
	}
	a.settle(name, l)
	return nil
}

// settle notes what is known of a member.
func (a *archive) settle(name string, l archivedLayer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.layers[name] = l
	if l.diffID != "" {
		a.made = append(a.made, l.diffID)
	}
}

// blobName says whether a member of an OCI layout is what its name says.
func blobName(name string, d digest.Digest) error {
	hex, ok := strings.CutPrefix(name, "blobs/sha256/")
	if ok && hex != d.Encoded() {
		return malformed("content has digest %s", d)
	}
	return nil
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
