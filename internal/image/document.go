package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image manifest, version 2, schema 2
// (distribution, docs/content/spec/manifest-v2-2.md).
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerLayerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerSchema1      = "application/vnd.docker.distribution.manifest.v1+"
)

// maxDocument bounds manifests, indexes and configs, in bytes. Registries
// accept manifests up to the same size.
const maxDocument = 4 << 20

// document is an index or a manifest whose bytes are verified: either index
// or manifest is set.
type document struct {
	desc     ocispec.Descriptor
	raw      []byte
	index    *ocispec.Index
	manifest *ocispec.Manifest
}

// verify compares data with the size and digest that desc promises.
func verify(desc ocispec.Descriptor, data []byte) error {
	if desc.Size != int64(len(data)) {
		return errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("%s has %d bytes, not %d", desc.Digest, len(data), desc.Size))
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return errdefs.ErrDataLoss.WithMessage(fmt.Sprintf("content has digest %s, not %s", got, desc.Digest))
	}
	return nil
}

// parseDocument is parseAny for an index or the manifest of an image.
func parseDocument(desc ocispec.Descriptor, data []byte) (document, error) {
	doc, err := parseAny(desc, data)
	if err != nil {
		return document{}, err
	}
	return doc, doc.checkImage()
}

// parseAny verifies data against desc and reads it as what its media type
// says: an index, or a manifest of whatever. A document that two readers could take for different things is
// refused: with layers and manifests at once, a media type that contradicts
// the transport's, the same key twice, or bytes behind the end
// (GHSA-77vh-xpmg-72qh and its relatives).
func parseAny(desc ocispec.Descriptor, data []byte) (document, error) {
	if err := verify(desc, data); err != nil {
		return document{}, err
	}
	keys, err := topKeys(data)
	if err != nil {
		return document{}, malformed("manifest %s: %s", desc.Digest, err)
	}
	mediaType, err := documentType(desc, data, keys)
	if err != nil {
		return document{}, err
	}
	desc.MediaType = mediaType
	doc := document{desc: desc, raw: data}
	switch mediaType {
	case ocispec.MediaTypeImageIndex, dockerManifestList:
		doc.index = new(ocispec.Index)
		if err := json.Unmarshal(data, doc.index); err != nil {
			return document{}, malformed("index %s: %s", desc.Digest, err)
		}
		for _, m := range doc.index.Manifests {
			if err := checkDescriptor(m); err != nil {
				return document{}, err
			}
		}
	case ocispec.MediaTypeImageManifest, dockerManifest:
		doc.manifest = new(ocispec.Manifest)
		if err := json.Unmarshal(data, doc.manifest); err != nil {
			return document{}, malformed("manifest %s: %s", desc.Digest, err)
		}
		for _, d := range append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...) {
			if err := checkDescriptor(d); err != nil {
				return document{}, fmt.Errorf("manifest %s: %w", desc.Digest, err)
			}
		}
	}
	return doc, nil
}

// documentType decides what a document is from the transport's media type,
// its own and its keys.
func documentType(desc ocispec.Descriptor, data []byte, keys map[string]bool) (string, error) {
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return "", malformed("manifest %s: %s", desc.Digest, err)
	}
	outer, _, _ := strings.Cut(desc.MediaType, ";")
	outer = strings.TrimSpace(outer)
	if head.SchemaVersion == 1 || strings.HasPrefix(outer, dockerSchema1) || strings.HasPrefix(head.MediaType, dockerSchema1) {
		return "", errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf(
			"manifest %s is of Docker's schema 1, which is no longer supported: push the image again with a current tool", desc.Digest))
	}
	switch outer {
	case "application/json", "application/octet-stream", "text/plain":
		outer = "" // says nothing
	}
	mediaType := outer
	switch {
	case outer != "" && head.MediaType != "" && outer != head.MediaType:
		return "", malformed("manifest %s calls itself %s but came as %s", desc.Digest, head.MediaType, outer)
	case outer == "" && head.MediaType != "":
		mediaType = head.MediaType
	case outer == "" && keys["manifests"]:
		mediaType = ocispec.MediaTypeImageIndex
	case outer == "" && keys["layers"]:
		mediaType = ocispec.MediaTypeImageManifest
	}
	switch mediaType {
	case ocispec.MediaTypeImageIndex, dockerManifestList:
		if keys["layers"] || keys["config"] {
			return "", malformed("index %s has the parts of a manifest too", desc.Digest)
		}
	case ocispec.MediaTypeImageManifest, dockerManifest:
		if keys["manifests"] {
			return "", malformed("manifest %s has the parts of an index too", desc.Digest)
		}
	case "":
		return "", malformed("document %s is neither a manifest nor an index", desc.Digest)
	default:
		return "", errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("manifest %s has the unsupported media type %q", desc.Digest, mediaType))
	}
	return mediaType, nil
}

// checkImage says whether a manifest is that of an image that shale can hold.
func (d document) checkImage() error {
	if d.manifest == nil {
		return nil
	}
	if err := checkManifest(d.manifest); err != nil {
		return fmt.Errorf("manifest %s: %w", d.desc.Digest, err)
	}
	return nil
}

func checkManifest(m *ocispec.Manifest) error {
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig:
	default:
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("content of type %q is not an image", m.Config.MediaType))
	}
	if m.Config.Size > maxDocument {
		return malformed("config of %d bytes is too large", m.Config.Size)
	}
	for _, l := range m.Layers {
		if err := checkLayerType(l); err != nil {
			return err
		}
	}
	return nil
}

func checkLayerType(l ocispec.Descriptor) error {
	if len(l.URLs) > 0 || strings.HasPrefix(l.MediaType, dockerLayerForeign) || strings.Contains(l.MediaType, ".nondistributable.") {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("layer %s is a foreign layer, which shale does not fetch", short(l.Digest)))
	}
	switch l.MediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		dockerLayer, dockerLayerGzip, dockerLayerZstd:
		return nil
	}
	return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("layer %s has the unsupported media type %q", short(l.Digest), l.MediaType))
}

// checkDescriptor refuses digests that could mean something as a path or in a
// URL, and sizes that are none.
func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return malformed("digest %.80q: %s", d.Digest, err)
	}
	if d.Digest.Algorithm() != digest.SHA256 {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("digest %s: only sha256 is supported", d.Digest))
	}
	if d.Size < 0 {
		return malformed("descriptor of %s has the size %d", d.Digest, d.Size)
	}
	return nil
}

// topKeys returns the keys of the JSON object data. It refuses an object that
// has a key twice at any depth, a top-level key that differs from one of the
// specification's in case only, and anything behind the object, because
// readers differ in what they make of those.
func topKeys(data []byte) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	keys, err := objectKeys(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more data behind the JSON object")
	}
	for k := range keys {
		switch lower := strings.ToLower(k); lower {
		case "layers", "manifests", "config", "schemaversion", "fslayers":
			if k != lower && k != "schemaVersion" && k != "fsLayers" {
				return nil, fmt.Errorf("key %q is written in the wrong case", k)
			}
		case "mediatype":
			if k != "mediaType" {
				return nil, fmt.Errorf("key %q is written in the wrong case", k)
			}
		}
	}
	return keys, nil
}

// objectKeys reads one JSON value. If it is an object, its keys come back.
func objectKeys(dec *json.Decoder, depth int) (map[string]bool, error) {
	const maxDepth = 64
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON is nested deeper than %d levels", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		if depth == 0 {
			return nil, errors.New("not a JSON object")
		}
		return nil, nil
	}
	var keys map[string]bool
	if delim == '{' {
		keys = make(map[string]bool)
	} else if depth == 0 {
		return nil, errors.New("not a JSON object")
	}
	for dec.More() {
		if delim == '{' {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string)
			if keys[key] {
				return nil, fmt.Errorf("key %q appears twice", key)
			}
			keys[key] = true
		}
		if _, err := objectKeys(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token() // the closing bracket
	return keys, err
}

func malformed(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}
