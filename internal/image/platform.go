package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ParsePlatform reads os/arch[/variant]. Errors are
// [errdefs.ErrInvalidArgument].
func ParsePlatform(s string) (ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return ocispec.Platform{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("parse platform %q: %s", s, err))
	}
	return platforms.Normalize(p), nil
}

// candidates returns the manifests of index that can serve p, best first. One
// that names no platform comes last: its config will tell.
func candidates(index *ocispec.Index, p ocispec.Platform) []ocispec.Descriptor {
	match := platforms.Only(p)
	var found, unknown []ocispec.Descriptor
	for _, m := range index.Manifests {
		switch {
		case m.Annotations[attestation] != "":
		case m.Platform == nil:
			unknown = append(unknown, m)
		case match.Match(platforms.Normalize(*m.Platform)):
			found = append(found, m)
		}
	}
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int {
		switch {
		case match.Less(platforms.Normalize(*a.Platform), platforms.Normalize(*b.Platform)):
			return -1
		case match.Less(platforms.Normalize(*b.Platform), platforms.Normalize(*a.Platform)):
			return 1
		}
		return 0
	})
	return append(found, unknown...)
}

// noPlatform is the error for an index that has nothing for p; it lists what
// there is.
func noPlatform(index *ocispec.Index, p ocispec.Platform) error {
	var has []string
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Annotations[attestation] == "" {
			has = append(has, platforms.Format(*m.Platform))
		}
	}
	slices.SortFunc(has, cmp.Compare)
	has = slices.Compact(has)
	what := "nothing"
	if len(has) > 0 {
		what = strings.Join(has, ", ")
	}
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("no matching manifest for %s: the index has %s", platforms.Format(p), what))
}

// serves says whether an image made for have can run as want.
func serves(have, want ocispec.Platform) bool {
	if have.OS == "" || have.Architecture == "" {
		return true // a config that doesn't say; old tools wrote such
	}
	return platforms.Only(want).Match(platforms.Normalize(have))
}

// otherPlatform is the error for an image that is there, but not for the
// platform that was asked for.
type otherPlatform struct{ have, want ocispec.Platform }

func (e *otherPlatform) Error() string {
	return fmt.Sprintf("the image's platform is %s, not %s", platforms.Format(e.have), platforms.Format(e.want))
}

func (e *otherPlatform) Unwrap() error { return errdefs.ErrNotFound }
