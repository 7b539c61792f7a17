package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/sys"
)

// encoder is a way in which shale compresses. It gives the same layer the same
// bytes, also when the default level has become another one.
type encoder struct {
	how   layer.Compression
	level int // never 0, which means another level in another version
}

// newEncoder is the encoder for level, where 0 is the default.
func newEncoder(how layer.Compression, level int) encoder { return encoder{how, how.Level(level)} }

func (e encoder) String() string { return fmt.Sprintf("%s %d", e.how, e.level) }

// packedLayer is a layer in the form in which it travels.
type packedLayer struct {
	desc ocispec.Descriptor
	file *os.File // without a name
}

// pack compresses the layers of b. The caller closes what comes back, also
// after an error.
func (i *Images) pack(ctx context.Context, b Built, f Form) (map[digest.Digest]packedLayer, error) {
	packed := map[digest.Digest]packedLayer{}
	if f.Compression == layer.None {
		return packed, nil
	}
	for _, img := range b.Images {
		for _, d := range img.Layers {
			if _, ok := packed[d]; ok {
				continue
			}
			file, err := sys.UnnamedFile(i.Store.Scratch())
			if err != nil {
				return packed, err
			}
			p := packedLayer{file: file}
			p.desc, err = i.compress(ctx, file, d, newEncoder(f.Compression, f.Level), nil)
			packed[d] = p
			if err != nil {
				return packed, fmt.Errorf("layer %s: %w", short(d), err)
			}
		}
	}
	return packed, nil
}

// compressTo is [Images.compress] when its turn has come.
func (p *pushing) compressTo(ctx context.Context, w io.Writer, id string, diffID digest.Digest, e encoder) (ocispec.Descriptor, error) {
	p.compressing <- struct{}{}
	defer func() { <-p.compressing }()
	return p.images.compress(ctx, w, diffID, e, func(n, total int64) {
		p.o.Progress.Emit(progress.Event{ID: id, Action: "Compressing", Current: n, Total: total})
	})
}

// compress writes the compressed form of a layer to w. The layer itself is
// verified on the way: what the disk made of it must not reach others. tell,
// which may be nil, hears how many bytes of how many are done.
func (i *Images) compress(ctx context.Context, w io.Writer, diffID digest.Digest, e encoder, tell func(n, total int64)) (ocispec.Descriptor, error) {
	tar, err := i.Store.Blob(diffID)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer tar.Close()
	sum := sha256.New()
	var size counter
	out, err := layer.Compress(io.MultiWriter(w, sum, &size), e.how, e.level)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	in := newVerifier(tar, ocispec.Descriptor{Digest: diffID, Size: tar.Size()}, func(n int64) {
		if tell != nil {
			tell(n, tar.Size())
		}
	})
	if _, err := io.CopyBuffer(onlyWriter{out}, cancelable{ctx, in}, make([]byte, 256<<10)); err != nil {
		out.Close()
		return ocispec.Descriptor{}, err
	}
	if err := errors.Join(out.Close(), in.check()); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{
		MediaType: e.how.MediaType(),
		Digest:    digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum.Sum(nil))),
		Size:      int64(size),
	}, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// onlyWriter hides ReadFrom, which would choose a buffer of its own.
type onlyWriter struct{ io.Writer }

// cancelable is a reader that ends with ctx.
type cancelable struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
