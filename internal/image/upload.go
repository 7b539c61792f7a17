package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/sys"
)

// layer makes the registry have the layer diffID and returns the compressed
// form that it has. l is what the manifest at hand says of the layer.
//
// In order of what it costs: the registry has it; another repository of the
// same registry has it; its bytes are here, or can be made again; another
// registry has it; it is compressed anew.
func (p *pushing) layer(ctx context.Context, l ocispec.Descriptor, diffID digest.Digest) (ocispec.Descriptor, error) {
	id := short(diffID)
	forms := p.forms(l, diffID)
	for _, f := range forms {
		if p.has(ctx, f) {
			p.o.Progress.Emit(progress.Event{ID: id, Action: "Layer already exists"})
			p.images.seen(f.Digest, p.source)
			return f, nil
		}
	}
	for _, f := range forms {
		if from := p.mount(ctx, f); from != "" {
			p.o.Progress.Emit(progress.Event{ID: id, Action: "Mounted from " + from})
			p.images.seen(f.Digest, p.source)
			return f, nil
		}
	}
	for _, f := range forms {
		if blob, err := p.images.Store.Blob(f.Digest); err == nil {
			defer blob.Close()
			return f, p.upload(ctx, id, f, io.NewSectionReader(blob, 0, blob.Size()))
		}
	}
	n, _ := p.images.note(l.Digest)
	e, ours := n.madeBy()
	if !ours {
		if l.Digest != diffID {
			err := p.relay(ctx, id, l)
			if err == nil || !errors.Is(err, errUnavailable) {
				return l, err
			}
		}
		e = newEncoder(p.o.Compression, p.o.Level)
		if c := compression(l.MediaType); c != layer.None && c != e.how {
			e = newEncoder(c, 0) // the form that the image has
		}
	}
	return p.compress(ctx, id, diffID, e)
}

// sources are the repositories that are known to have a blob: those of its
// note, then those that the image itself came from.
func (p *pushing) sources(blob digest.Digest) []string {
	n, _ := p.images.note(blob)
	sources := n.Sources
	for _, s := range p.origins {
		if !slices.Contains(sources, s) {
			sources = append(sources, s)
		}
	}
	return sources
}

// forms returns the compressed forms of a layer that may be sent: the one
// that the manifest names if it came like that, else those that are known.
func (p *pushing) forms(l ocispec.Descriptor, diffID digest.Digest) []ocispec.Descriptor {
	if l.Digest != diffID || len(p.origins) > 0 {
		return []ocispec.Descriptor{l}
	}
	if p.o.Plain {
		return []ocispec.Descriptor{l}
	}
	var forms []ocispec.Descriptor
	for _, blob := range p.images.forms(diffID) {
		n, ok := p.images.note(blob)
		if ok && n.DiffID == diffID && p.wants(n) {
			forms = append(forms, ocispec.Descriptor{MediaType: p.o.Compression.MediaType(), Digest: blob, Size: n.Size})
		}
	}
	return forms
}

// wants says whether the blob of n is in the form that is asked for. What
// somebody else has compressed will do, unless it is to be ours.
func (p *pushing) wants(n note) bool {
	e, ours := n.madeBy()
	if !ours {
		return compression(n.MediaType) == p.o.Compression && !p.o.Force
	}
	return e.how == p.o.Compression && (p.o.Level == 0 || e.level == p.o.Level)
}

// compression is what a layer's media type says of it.
func compression(mediaType string) layer.Compression {
	switch mediaType {
	case ocispec.MediaTypeImageLayerGzip, dockerLayerGzip:
		return layer.Gzip
	case ocispec.MediaTypeImageLayerZstd, dockerLayerZstd:
		return layer.Zstd
	}
	return layer.None
}

// mount asks the registry to take the blob over from a repository of its own
// and returns that repository; "" if it doesn't.
func (p *pushing) mount(ctx context.Context, f ocispec.Descriptor) string {
	for _, source := range p.sources(f.Digest) {
		repo, ok := strings.CutPrefix(source, p.host+"/")
		if !ok || repo == p.repo {
			continue
		}
		if _, err := p.dst.MountBlob(ctx, repo, p.repo, f.Digest); err == nil {
			return repo
		}
	}
	return ""
}

var errUnavailable = errors.New("compressed layer is not to be had")

// relay sends a compressed layer that only another registry has. If none has
// it the error is errUnavailable.
func (p *pushing) relay(ctx context.Context, id string, l ocispec.Descriptor) error {
	for _, source := range p.sources(l.Digest) {
		host, repo, _ := strings.Cut(source, "/")
		if source == p.source {
			continue
		}
		src, err := p.images.Registries(host)
		if err != nil {
			continue
		}
		r, err := src.GetBlob(ctx, repo, l.Digest)
		if err != nil {
			continue
		}
		defer r.Close()
		tell := p.teller(id, l.Size)
		blob := newVerifier(r, l, tell)
		if _, err := p.dst.PushBlob(ctx, p.repo, l, blob); err != nil {
			return blob.blame(err)
		}
		p.pushed(id, l)
		return nil
	}
	return errUnavailable
}

// upload sends a compressed layer that is at hand.
func (p *pushing) upload(ctx context.Context, id string, desc ocispec.Descriptor, r *io.SectionReader) error {
	body := &told{SectionReader: r, tell: p.teller(id, desc.Size)}
	if _, err := p.dst.PushBlob(ctx, p.repo, desc, body); err != nil {
		return err
	}
	p.pushed(id, desc)
	return nil
}

func (p *pushing) teller(id string, total int64) func(int64) {
	return func(n int64) {
		p.o.Progress.Emit(progress.Event{ID: id, Action: "Pushing", Current: n, Total: total})
	}
}

func (p *pushing) pushed(id string, desc ocispec.Descriptor) {
	p.images.seen(desc.Digest, p.source)
	p.o.Progress.Emit(progress.Event{ID: id, Action: "Pushed"})
}

// compress compresses a layer into a file without a name and sends that. The
// file costs little beside the compression, and with it the digest is known
// before the registry is told: what it has need not be kept there twice, and
// a request that fails can be sent again. A large layer is on its way while it
// is still being compressed.
func (p *pushing) compress(ctx context.Context, id string, diffID digest.Digest, e encoder) (ocispec.Descriptor, error) {
	file, err := sys.UnnamedFile(p.images.Store.Scratch())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer file.Close()
	var first *ahead
	to := io.Writer(file)
	if size, err := p.images.Store.Stat(diffID); err == nil && size >= aheadFrom {
		if first = p.sendAhead(ctx, file); first != nil {
			to = io.MultiWriter(file, first)
		}
	}
	desc, err := p.compressTo(ctx, to, id, diffID, e)
	if err != nil {
		if first != nil {
			first.abandon()
		}
		return ocispec.Descriptor{}, err
	}
	n := note{DiffID: diffID, MediaType: desc.MediaType, Size: desc.Size, Sources: []string{p.source}, Made: e.String()}
	if err := p.deliver(ctx, id, desc, file, first); err != nil {
		return ocispec.Descriptor{}, err
	}
	p.images.remember(desc.Digest, n)
	return desc, nil
}

// deliver makes the registry have the compressed layer in file, some of which
// may have been sent already.
func (p *pushing) deliver(ctx context.Context, id string, desc ocispec.Descriptor, file io.ReaderAt, first *ahead) error {
	if p.has(ctx, desc) {
		if first != nil {
			first.abandon()
		}
		p.o.Progress.Emit(progress.Event{ID: id, Action: "Layer already exists"})
		return nil
	}
	if first != nil && first.commit(desc.Digest) == nil {
		p.pushed(id, desc)
		return nil
	}
	return p.upload(ctx, id, desc, io.NewSectionReader(file, 0, desc.Size))
}

// told is a section of a file that tells how far it was read. It can be
// rewound, so that a request that carries it can be sent again.
type told struct {
	*io.SectionReader
	tell    func(int64)
	n, last int64
}

func (t *told) Read(p []byte) (int, error) {
	n, err := t.SectionReader.Read(p)
	t.n += int64(n)
	if t.n-t.last >= tellEvery {
		t.last = t.n
		t.tell(t.n)
	}
	return n, err
}

func (t *told) Seek(offset int64, whence int) (int64, error) {
	at, err := t.SectionReader.Seek(offset, whence)
	t.n, t.last = at, at
	return at, err
}

func rewindable(data []byte) io.Reader { return bytes.NewReader(data) }
