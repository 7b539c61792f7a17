package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations by which Docker and containerd find the name of an image in an
// OCI layout.
const (
	containerdName = "io.containerd.image.name"
	refName        = ocispec.AnnotationRefName
)

// archiveItem is an entry of docker-archive's manifest.json.
type archiveItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// contents are what an OCI layout holds, as an archive or as a directory.
type contents struct {
	index  []ocispec.Descriptor // of index.json
	items  []archiveItem        // of manifest.json, which there is not if they are nil
	docs   map[digest.Digest][]byte
	layers map[digest.Digest]*os.File // nil where the store has the blob
}

func newContents() *contents {
	return &contents{docs: map[digest.Digest][]byte{}, layers: map[digest.Digest]*os.File{}}
}

// name enters desc under each of the names, or, if there are none, once.
func (c *contents) name(desc ocispec.Descriptor, item *archiveItem, names []reference.NamedTagged) {
	if len(names) == 0 {
		c.index = append(c.index, desc)
	}
	annotations := desc.Annotations
	for _, name := range names {
		item.RepoTags = append(item.RepoTags, reference.FamiliarString(name))
		desc.Annotations = map[string]string{containerdName: name.String(), refName: name.Tag()}
		maps.Copy(desc.Annotations, annotations)
		c.index = append(c.index, desc)
	}
}

// writeArchive writes what says what is in the archive first, so that it can
// be loaded from a pipe.
func (i *Images) writeArchive(ctx context.Context, w io.Writer, c *contents) error {
	a := &archiveWriter{tar: tar.NewWriter(w)}
	a.json("oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: append([]ocispec.Descriptor{}, c.index...),
	}
	a.json("index.json", index)
	if c.items != nil {
		a.json("manifest.json", c.items)
	}
	a.dir("blobs/")
	a.dir("blobs/sha256/")
	for _, d := range sorted(c.docs) {
		a.file(blobPath(d), c.docs[d])
	}
	for _, d := range sorted(c.layers) {
		if a.err == nil {
			a.err = i.layerTo(ctx, c, d, func(size int64, r io.Reader) error {
				a.header(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d), Mode: 0o644, Size: size})
				if a.err != nil {
					return a.err
				}
				_, err := io.CopyBuffer(onlyWriter{a.tar}, r, make([]byte, 256<<10))
				return err
			})
		}
	}
	if a.err != nil {
		return a.err
	}
	return a.tar.Close()
}

// layerTo hands a layer of c to write, and verifies it on the way.
func (i *Images) layerTo(ctx context.Context, c *contents, d digest.Digest, write func(size int64, r io.Reader) error) error {
	var from io.Reader
	var size int64
	if file := c.layers[d]; file != nil {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		size = info.Size()
		from = io.NewSectionReader(file, 0, size)
	} else {
		blob, err := i.Store.Blob(d)
		if err != nil {
			return err
		}
		defer blob.Close()
		from, size = blob, blob.Size()
	}
	in := newVerifier(from, ocispec.Descriptor{Digest: d, Size: size}, nil)
	if err := write(size, cancelable{ctx, in}); err != nil {
		return err
	}
	return in.check()
}

// archiveWriter writes members without anything that depends on the machine.
// It remembers the first error.
type archiveWriter struct {
	tar *tar.Writer
	err error
}

func (a *archiveWriter) header(h *tar.Header) {
	if a.err == nil {
		h.ModTime = time.Unix(0, 0)
		a.err = a.tar.WriteHeader(h)
	}
}

func (a *archiveWriter) dir(name string) {
	a.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

func (a *archiveWriter) file(name string, data []byte) {
	a.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	if a.err == nil {
		_, a.err = a.tar.Write(data)
	}
}

func (a *archiveWriter) json(name string, v any) {
	data, err := json.Marshal(v)
	if a.err == nil {
		a.err = err
	}
	a.file(name, data)
}
