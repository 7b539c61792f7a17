package image

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
)

// large is a layer that is sent while it is being compressed.
func large() []byte {
	noise := make([]byte, aheadFrom+1<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(noise)
	return tarOf("noise", string(noise))
}

// However far a registry lets the upload get that began before the digest was
// known, it has the layer in the end, and the digest is the same.
func TestALargeLayerArrivesHoweverItsUploadBegins(t *testing.T) {
	data := large()
	digests := map[string]bool{}
	for name, breaks := range map[string]func(ociregistry.Interface) ociregistry.Interface{
		"at once":    func(r ociregistry.Interface) ociregistry.Interface { return r },
		"not at all": func(r ociregistry.Interface) ociregistry.Interface { return &breaking{Interface: r, after: -1} },
		"half-way": func(r ociregistry.Interface) ociregistry.Interface {
			return &breaking{Interface: r, after: aheadFrom / 2}
		},
		"until the end": func(r ociregistry.Interface) ociregistry.Interface { return &breaking{Interface: r, after: 1 << 40} },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := newWorld(t), newWorld(t)
			registry := here.registries["reg.test"]
			there.registries["reg.test"] = registry
			here.registries["reg.test"] = breaks(registry)
			img := here.local(epoch, [][]byte{data}, "reg.test/app:v1")
			desc := must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
			digests[desc.Digest.String()] = true
			must(there.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
			if got := must(there.Get(t.Context(), "reg.test/app:v1", nil))(t); got.ConfigDigest != img.ConfigDigest {
				t.Error("another image came back")
			}
		})
	}
	if len(digests) != 1 {
		t.Errorf("the digest depends on the way: %v", digests)
	}
}

// breaking is a registry whose chunked uploads fail after so many bytes;
// -1 refuses them, and more than all fails at the commit.
type breaking struct {
	ociregistry.Interface
	after int64
}

var errBroken = errors.New("connection reset")

func (b *breaking) PushBlobChunked(ctx context.Context, repo string, size int) (ociregistry.BlobWriter, error) {
	if b.after < 0 {
		return nil, errBroken
	}
	w, err := b.Interface.PushBlobChunked(ctx, repo, size)
	return &breakingWriter{w, b.after}, err
}

type breakingWriter struct {
	ociregistry.BlobWriter
	left int64
}

func (w *breakingWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errBroken
	}
	return w.BlobWriter.Write(p)
}

func (w *breakingWriter) Commit(ociregistry.Digest) (ociregistry.Descriptor, error) {
	return ociregistry.Descriptor{}, errBroken
}
