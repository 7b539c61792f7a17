package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// layoutDir is a directory with an OCI layout (image-spec, image-layout.md),
// seen as a registry. It has one repository, whatever that is called. Content
// is complete when it gets its name; nothing is ever removed.
type layoutDir struct {
	*ociregistry.Funcs // what is not here is not supported
	dir                string
}

var _ ociregistry.Interface = (*layoutDir)(nil)

func newLayoutDir(dir string) *layoutDir { return &layoutDir{dir: dir} }

func (l *layoutDir) blob(d digest.Digest) (string, error) {
	if err := checkDescriptor(ocispec.Descriptor{Digest: d}); err != nil {
		return "", err
	}
	return filepath.Join(l.dir, filepath.FromSlash(blobPath(d))), nil
}

// layoutBlob is an open file of a layout.
type layoutBlob struct {
	*os.File
	desc ocispec.Descriptor
}

func (b *layoutBlob) Descriptor() ociregistry.Descriptor { return b.desc }

func (l *layoutDir) open(desc ocispec.Descriptor) (ociregistry.BlobReader, error) {
	path, err := l.blob(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	if desc.Size != 0 && desc.Size != size {
		f.Close()
		return nil, errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("%s has %d bytes, not %d", desc.Digest, size, desc.Size))
	}
	desc.Size = size
	return &layoutBlob{File: f, desc: desc}, nil
}

// openRegular opens a file of a layout and returns its size in bytes. What
// else there may be under the name, such as a pipe that nobody writes to, is
// not waited for.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("open %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = malformed("%s is no file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// GetBlob opens a blob; the caller verifies it.
func (l *layoutDir) GetBlob(_ context.Context, _ string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	return l.open(ocispec.Descriptor{MediaType: octets, Digest: d})
}

// GetManifest opens a manifest, which is a blob like any other. What the index
// says of its size has to be true.
func (l *layoutDir) GetManifest(_ context.Context, _ string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	desc := ocispec.Descriptor{MediaType: octets, Digest: d}
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	for _, m := range index.Manifests {
		if m.Digest == d {
			desc.Size = m.Size
		}
	}
	return l.open(desc)
}

// GetTag opens the manifest that the index has under tag.
func (l *layoutDir) GetTag(_ context.Context, _ string, tag string) (ociregistry.BlobReader, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	for _, m := range index.Manifests {
		if m.Annotations[refName] == tag {
			return l.open(ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size})
		}
	}
	return nil, fmt.Errorf("%s has no %q: %w", l.dir, tag, errdefs.ErrNotFound)
}

// ResolveBlob says whether a blob is there.
func (l *layoutDir) ResolveBlob(_ context.Context, _ string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	r, err := l.open(ocispec.Descriptor{MediaType: octets, Digest: d})
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	return r.Descriptor(), r.Close()
}

func (l *layoutDir) index() (*ocispec.Index, error) {
	path := filepath.Join(l.dir, ocispec.ImageIndexFile)
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	index := new(ocispec.Index)
	if err := json.Unmarshal(data, index); err != nil {
		return nil, malformed("%s: %s", path, err)
	}
	return index, nil
}

// PushBlob writes a blob aside and gives it its name if it is the right one.
func (l *layoutDir) PushBlob(_ context.Context, _ string, desc ociregistry.Descriptor, r io.Reader) (_ ociregistry.Descriptor, err error) {
	path, err := l.blob(desc.Digest)
	if err != nil {
		return desc, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return desc, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return desc, err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), r)
	if err == nil && (n != desc.Size || digest.NewDigest(digest.SHA256, sum) != desc.Digest) {
		err = errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("%s is not what was written", desc.Digest))
	}
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return desc, err
	}
	return desc, os.Rename(f.Name(), path)
}

// PushManifest writes a manifest and points tag at it.
func (l *layoutDir) PushManifest(ctx context.Context, repo, tag string, contents []byte, mediaType string) (ociregistry.Descriptor, error) {
	desc := describe(mediaType, contents)
	if _, err := l.PushBlob(ctx, repo, desc, rewindable(contents)); err != nil || tag == "" {
		return desc, err
	}
	desc.Annotations = map[string]string{refName: tag}
	err := l.enter(desc)
	desc.Annotations = nil
	return desc, err
}

// enter adds entries to the index. One takes the place of another that has
// its name, or, if it has none, its digest.
func (l *layoutDir) enter(entries ...ocispec.Descriptor) error {
	index, err := l.index()
	if errdefs.IsNotFound(err) {
		index, err = &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}, nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
			return sameEntry(m, entry)
		})
		index.Manifests = append(index.Manifests, entry)
	}
	version, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return err
	}
	if err := store.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), version); err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), data)
}

func sameEntry(a, b ocispec.Descriptor) bool {
	if a.Annotations[refName] == "" && b.Annotations[refName] == "" {
		return a.Digest == b.Digest
	}
	return a.Annotations[refName] == b.Annotations[refName] && a.Annotations[containerdName] == b.Annotations[containerdName]
}
