package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker, image manifest version 2, schema 2.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// parseManifest reads a manifest or index that a stranger has pushed as
// mediaType. What two programs could read differently is refused: a document
// of both kinds, or of another kind than it was pushed as, keys that are there
// twice or in another case.
func parseManifest(data []byte, mediaType string) (*document, error) {
	if len(data) > DocumentLimit {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", len(data), DocumentLimit, errdefs.ErrInvalidArgument)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	why := ""
	index := mediaType == ocispec.MediaTypeImageIndex || mediaType == mediaTypeDockerList
	switch {
	case !index && mediaType != ocispec.MediaTypeImageManifest && mediaType != mediaTypeDockerManifest:
		why = fmt.Sprintf("media type %.100q is not that of a manifest", mediaType)
	case doc.MediaType != "" && doc.MediaType != mediaType:
		why = fmt.Sprintf("document says media type %.100q, sender says %s", doc.MediaType, mediaType)
	case doc.SchemaVersion != 2:
		why = fmt.Sprintf("schema version %d, not 2", doc.SchemaVersion)
	case index && (doc.Config != nil || doc.Layers != nil):
		why = "an index with a config or layers"
	case !index && doc.Manifests != nil:
		why = "a manifest with manifests"
	case !index && doc.Config == nil:
		why = "a manifest without a config"
	default:
		why = ambiguousKey(data)
	}
	if why != "" {
		return nil, fmt.Errorf("%s: %w", why, errdefs.ErrInvalidArgument)
	}
	return &doc, doc.validate()
}

// validate checks every descriptor.
func (d *document) validate() error {
	all := slices.Concat(d.Layers, d.Manifests)
	for _, one := range []*ocispec.Descriptor{d.Config, d.Subject} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for _, desc := range all {
		if _, _, err := splitDigest(desc.Digest); err != nil {
			return err
		}
		if desc.Size < 0 {
			return fmt.Errorf("descriptor of %s has size %d: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// manifestKeys are those that image-spec gives a meaning at the top of a
// manifest or index.
var manifestKeys = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}

// ambiguousKey returns what is wrong with the keys at the top of a JSON
// object. Parsers differ in which of two equal keys they take, and in whether
// case matters.
func ambiguousKey(data []byte) string {
	seen := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(data))
	depth, isKey := 0, false
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
				isKey = depth == 1
				continue
			}
			depth--
		case string:
			if depth == 1 && isKey {
				if seen[t] {
					return fmt.Sprintf("key %.100q is there twice", t)
				}
				for _, known := range manifestKeys {
					if t != known && strings.EqualFold(t, known) {
						return fmt.Sprintf("key %.100q is not %q", t, known)
					}
				}
				seen[t] = true
				isKey = false
				continue
			}
		}
		// A value at depth 1 has just ended: what follows is a key.
		isKey = depth == 1
	}
}
