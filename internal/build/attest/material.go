package attest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/purl"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"
)

// origins are what a graph reads.
type origins struct {
	materials []material
	locals    []string
}

// sources lists the origins of the steps, each once and in order. found are
// the digests of those that the graph does not pin.
func (s *steps) sources(found map[string]string, scrub *scrubber) origins {
	var o origins
	for _, d := range s.order {
		op := s.ops[d].GetSource()
		if op == nil {
			continue
		}
		scheme, name, _ := strings.Cut(op.Identifier, "://")
		var m material
		switch scheme {
		case "local":
			o.locals = append(o.locals, name)
			continue
		case "docker-image", "oci-layout":
			m = imageMaterial(scheme, name, s.ops[d].Platform)
		case "git":
			m = gitMaterial(name, op.Attrs, found[op.Identifier])
		default:
			m = material{URI: op.Identifier, Digest: digestSet(cmp.Or(found[op.Identifier], op.Attrs[pb.AttrHTTPChecksum]))}
		}
		m.URI = scrub.text(m.URI)
		o.materials = append(o.materials, m)
	}
	slices.Sort(o.locals)
	o.locals = slices.Compact(o.locals)
	slices.SortStableFunc(o.materials, func(a, b material) int { return cmp.Compare(a.URI, b.URI) })
	o.materials = slices.CompactFunc(o.materials, func(a, b material) bool { return a.URI == b.URI })
	return o
}

// imageMaterial names an image as the Dockerfile does, by its tag where it
// has one; the digest stands beside it.
func imageMaterial(scheme, name string, p *pb.Platform) material {
	kind := packageurl.TypeDocker
	if scheme == "oci-layout" {
		kind = packageurl.TypeOCI
	}
	m := material{URI: scheme + "://" + name}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return m
	}
	if digested, ok := named.(reference.Digested); ok {
		m.Digest = digestSet(digested.Digest().String())
		if tagged, ok := named.(reference.Tagged); ok {
			if short, err := reference.WithTag(reference.TrimNamed(named), tagged.Tag()); err == nil {
				named = short
			}
		}
	}
	var platform *ocispec.Platform
	if p != nil {
		platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
	}
	if uri, err := purl.RefToPURL(kind, named.String(), platform); err == nil {
		m.URI = uri
	}
	return m
}

// gitMaterial names a repository by its whole URL, and the commit.
func gitMaterial(name string, attrs map[string]string, commit string) material {
	remote, fragment, _ := strings.Cut(name, "#")
	if full := attrs[pb.AttrFullRemoteURL]; full != "" {
		remote = full
	} else {
		remote = "https://" + remote
	}
	ref, _, _ := strings.Cut(fragment, ":")
	for _, pinned := range []string{ref, attrs[pb.AttrGitChecksum]} {
		if commit == "" && isCommit(pinned) {
			commit = pinned
		}
	}
	if ref != "" {
		remote += "#" + ref
	}
	return material{URI: remote, Digest: digestSet(commit)}
}

func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// digestSet is a digest or a commit in the words of in-toto
// (in-toto/attestation, spec/v1/digest_set.md).
func digestSet(sum string) map[string]string {
	if d, err := digest.Parse(sum); err == nil {
		return map[string]string{d.Algorithm().String(): d.Encoded()}
	}
	switch {
	case !isCommit(sum):
		return nil
	case len(sum) == 64:
		return map[string]string{"sha256": sum}
	}
	return map[string]string{"sha1": sum}
}

// sameSource tells whether the source of a graph is the one that the user has
// named, which may say how it is to be read.
func sameSource(identifier, uri string) bool {
	if identifier == uri {
		return true
	}
	strip := func(s string) string {
		_, s, _ = strings.Cut(s, "://")
		if _, host, ok := strings.Cut(s, "@"); ok {
			s = host
		}
		return strings.TrimSuffix(s, ".git")
	}
	scheme, _, _ := strings.Cut(identifier, "://")
	return scheme == "git" && strip(identifier) == strip(uri)
}

// ImageName is the package URL under which an image is published.
func ImageName(name string, p ocispec.Platform) (string, error) {
	return purl.RefToPURL(packageurl.TypeDocker, name, &p)
}
