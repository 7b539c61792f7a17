package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// verifier reads a blob and compares it with its descriptor. Whoever reads
// from it must call finish before he believes what he read.
type verifier struct {
	r    io.Reader
	desc ocispec.Descriptor
	hash hash.Hash // nil if r does that
	n    int64
	told int64
	tell func(n int64) // may be nil
}

// tellEvery is how many bytes lie between two progress events.
const tellEvery = 512 << 10

func newVerifier(r io.Reader, desc ocispec.Descriptor, tell func(int64)) *verifier {
	v := &verifier{r: r, desc: desc, hash: sha256.New(), tell: tell}
	if c, ok := r.(careful); ok && c.Verifies() {
		v.hash = nil
	}
	return v
}

// careful is met by readers of blobs that compare what they read with the
// digest that was asked for, and end in an error if it is something else.
// Hashing twice is a twentieth of a pull.
type careful interface{ Verifies() bool }

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	v.n += int64(n)
	if v.n > v.desc.Size {
		return n, v.tooLong()
	}
	if v.tell != nil && v.n-v.told >= tellEvery {
		v.told = v.n
		v.tell(v.n)
	}
	return n, err
}

// finish reads what is left, which the compression did not need, and says
// whether the blob is the one that was asked for.
func (v *verifier) finish() error {
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{v}); err != nil {
		return err
	}
	return v.check()
}

// check compares what was read so far with the descriptor.
func (v *verifier) check() error {
	if v.n != v.desc.Size {
		return errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("%s has only %d bytes of %d", v.desc.Digest, v.n, v.desc.Size))
	}
	if v.hash == nil {
		return nil
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.desc.Digest.Encoded() {
		return errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("content has digest sha256:%s, not %s", got, v.desc.Digest))
	}
	return nil
}

func (v *verifier) tooLong() error {
	return errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("%s has more than %d bytes", v.desc.Digest, v.desc.Size))
}

// blame returns the reason behind err, which a reader of v met: if the blob
// is damaged that is the reason, whatever the decompressor makes of it.
func (v *verifier) blame(err error) error {
	if errors.Is(err, errdefs.ErrDataLoss) {
		return err
	}
	if damage := v.finish(); damage != nil && errdefs.IsDataLoss(damage) {
		return damage
	}
	return err
}
