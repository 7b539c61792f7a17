package server

import (
	"fmt"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociref"
)

// kind says what a path is about.
type kind int

const (
	other    kind = iota // for ociserver: the version check, referrers, what is unknown
	manifest             // for ociserver, after a look at the size
	blob
	uploads // a repository's uploads as such
	upload  // one of them
	tags
	catalog
)

// target is what a request is for.
type target struct {
	kind   kind
	repo   string
	digest ociregistry.Digest // of a blob, or of a manifest that is named by it
	upload string             // the registry's identifier
}

// longestName is the length in bytes of the longest repository name, the one
// of Docker: distribution/reference, NameTotalLengthMax.
const longestName = 255

// parse finds out what req is for.
func parse(req *http.Request) (target, error) {
	u := req.URL
	// An escaped slash or dot has no business in any of the paths, and is read
	// in one way here and in another by the proxy in front.
	escaped := strings.ToLower(u.EscapedPath())
	for _, bad := range []string{"%2f", "%5c", "%2e", "%00", "/../", "/./", "//"} {
		if strings.Contains(escaped, bad) {
			return target{}, ociregistry.NewHTTPError(ociregistry.ErrNameInvalid, http.StatusBadRequest, nil, nil)
		}
	}
	path, ok := strings.CutPrefix(u.Path, "/v2/")
	if !ok || path == "" {
		return target{}, nil
	}
	if path == "_catalog" {
		return target{kind: catalog}, nil
	}
	t, last := split(path)
	if t.kind == other {
		return t, nil
	}
	if len(t.repo) > longestName || !ociref.IsValidRepository(t.repo) {
		return target{}, ociregistry.ErrNameInvalid
	}
	switch t.kind {
	case blob:
		if !ociref.IsValidDigest(last) {
			return target{}, fmt.Errorf("malformed digest: %w", ociregistry.ErrDigestInvalid)
		}
		t.digest = ociregistry.Digest(last)
	case manifest:
		// ociserver asks IsValidTag about an empty tag, which panics.
		switch {
		case strings.Contains(last, ":") && !ociref.IsValidDigest(last):
			return target{}, fmt.Errorf("malformed digest: %w", ociregistry.ErrDigestInvalid)
		case strings.Contains(last, ":"):
			t.digest = ociregistry.Digest(last)
		case last != "" && ociref.IsValidTag(last):
		case req.Method == http.MethodPut:
			return target{}, fmt.Errorf("malformed tag: %w", ociregistry.ErrManifestInvalid)
		default:
			return target{}, ociregistry.ErrManifestUnknown
		}
	case upload:
		id, err := decodeUpload(last)
		if err != nil {
			return target{}, ociregistry.ErrBlobUploadUnknown
		}
		t.upload = id
	}
	return t, nil
}

// split takes path apart at the last word that says what it is about.
func split(path string) (t target, last string) {
	if repo, ok := strings.CutSuffix(path, "/tags/list"); ok {
		return target{kind: tags, repo: repo}, ""
	}
	if repo, ok := strings.CutSuffix(strings.TrimSuffix(path, "/"), "/blobs/uploads"); ok {
		return target{kind: uploads, repo: repo}, ""
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return target{}, ""
	}
	head, last := path[:i], path[i+1:]
	for _, form := range []struct {
		suffix string
		kind   kind
	}{{"/blobs/uploads", upload}, {"/blobs", blob}, {"/manifests", manifest}} {
		if repo, ok := strings.CutSuffix(head, form.suffix); ok {
			return target{kind: form.kind, repo: repo}, last
		}
	}
	return target{}, ""
}
