package image

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// dangling is the first character of a ref that has no name: "@sha256:…".
const dangling = "@"

// ParseName reads a reference as Docker does: "busybox" is
// docker.io/library/busybox:latest, and of "name:tag@digest" the digest
// counts. Errors are [errdefs.ErrInvalidArgument].
func ParseName(s string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return nil, badName(s, err)
	}
	return named, nil
}

// parseRepository reads a repository name that may carry no tag.
func parseRepository(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badName(s, err)
	}
	if !reference.IsNameOnly(named) {
		return nil, errdefs.ErrInvalidArgument.WithMessage(
			fmt.Sprintf("parse reference %q: tag can't be used with --all-tags/-a", s))
	}
	return named, nil
}

func badName(s string, err error) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("parse reference %q: %s", s, err))
}

// Familiar returns the form of a ref's name that people type: without
// docker.io/library/. Like splitRef it trusts the store; parsing would cost
// more than the rest of a list.
func Familiar(name string) string {
	rest, ok := strings.CutPrefix(name, "docker.io/")
	if !ok {
		return name
	}
	if official, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(official, "/") {
		return official
	}
	return rest
}

// splitRef cuts a ref's name into repository and tag or digest. It trusts the
// store to hold only names that were parsed once, and so is cheap.
func splitRef(name string) (repository, tag string, d digest.Digest) {
	if repo, dgst, ok := strings.Cut(name, "@"); ok {
		return repo, "", digest.Digest(dgst)
	}
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name[i:], "/") {
		return name, "", ""
	}
	return name[:i], name[i+1:], ""
}

// idPrefix returns the hexadecimal digits of s if s can be an image id or the
// start of one.
func idPrefix(s string) (string, bool) {
	s = strings.TrimPrefix(s, "sha256:")
	if s == "" || len(s) > 64 {
		return "", false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return s, true
}

// endpoint returns the host that serves a repository and the name that the
// repository has there.
func endpoint(named reference.Named) (host, repository string) {
	return reference.Domain(named), reference.Path(named)
}

// short is the form of a digest that people see.
func short(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(12, len(hex))]
}
