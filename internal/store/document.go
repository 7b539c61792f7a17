package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// document is what the store wants to know of a manifest, an index or an
// image config. Which of them it is, its fields tell.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
	RootFS        rootFS               `json:"rootfs"`
}

type rootFS struct {
	DiffIDs []digest.Digest `json:"diff_ids"`
}

// readDocument reads a manifest or index.
func (s *Store) readDocument(d digest.Digest) (*document, error) {
	data, err := s.Read(d)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	return &doc, nil
}

// children returns the digests that the document needs. A subject is not among
// them: a referrer doesn't keep what it refers to (distribution-spec,
// "Referrers").
func (d *document) children() []digest.Digest {
	var ds []digest.Digest
	add := func(d digest.Digest) {
		if _, _, err := splitDigest(d); err == nil {
			ds = append(ds, d)
		}
	}
	// The config of an image is a document whose own "config" has no digest.
	if d.Config != nil {
		add(d.Config.Digest)
	}
	for _, l := range d.Layers {
		add(l.Digest)
	}
	for _, m := range d.Manifests {
		add(m.Digest)
	}
	for _, l := range d.RootFS.DiffIDs {
		add(l)
	}
	return ds
}

// maxNesting bounds indexes of indexes.
const maxNesting = 8

// complete returns nil if all that desc needs is in the store: see
// [Store.SetRef]. What is missing is an [errdefs.ErrNotFound], what has a wrong
// size or digest an [errdefs.ErrDataLoss].
func (s *Store) complete(desc ocispec.Descriptor) error {
	return (&closure{store: s, seen: map[digest.Digest]error{}}).manifest(desc, maxNesting)
}

// closure remembers what it has looked at: an index may name a manifest often,
// and many refs share theirs.
type closure struct {
	store *Store
	seen  map[digest.Digest]error
}

func (c *closure) manifest(desc ocispec.Descriptor, depth int) error {
	if err, ok := c.seen[desc.Digest]; ok {
		return err
	}
	if depth == 0 {
		return fmt.Errorf("read index %s: nested more than %d deep: %w", desc.Digest, maxNesting, errdefs.ErrInvalidArgument)
	}
	c.seen[desc.Digest] = fmt.Errorf("read index %s: it contains itself: %w", desc.Digest, errdefs.ErrInvalidArgument)
	err := c.manifestOnce(desc, depth)
	c.seen[desc.Digest] = err
	return err
}

func (c *closure) manifestOnce(desc ocispec.Descriptor, depth int) error {
	if err := c.store.present(desc.Digest, desc.Size); err != nil {
		return err
	}
	doc, err := c.store.readDocument(desc.Digest)
	if err != nil {
		return err
	}
	switch {
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		return fmt.Errorf("read manifest %s: both a manifest and an index: %w", desc.Digest, errdefs.ErrInvalidArgument)
	case doc.Config != nil:
		return c.image(doc)
	case doc.Manifests != nil:
		return c.index(doc, depth)
	}
	return fmt.Errorf("read manifest %s: neither a manifest nor an index: %w", desc.Digest, errdefs.ErrInvalidArgument)
}

// index wants one whole manifest: the others are of platforms that nobody has
// asked for. Attestations, which are of no platform, don't count beside
// images. An index of nothing is whole.
func (c *closure) index(doc *document, depth int) error {
	images := slices.DeleteFunc(slices.Clone(doc.Manifests), func(m ocispec.Descriptor) bool {
		return m.Platform != nil && m.Platform.OS == "unknown"
	})
	if len(images) == 0 {
		images = doc.Manifests
	}
	var first error
	for _, m := range images {
		err := c.manifest(m, depth-1)
		if err == nil {
			return nil
		}
		// The one whose manifest is here is the one that somebody wanted.
		if first == nil || c.store.present(m.Digest, -1) == nil {
			first = err
		}
	}
	return first
}

func (c *closure) image(doc *document) error {
	if err := c.store.present(doc.Config.Digest, doc.Config.Size); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	diffIDs, err := c.store.diffIDs(*doc.Config)
	if err != nil {
		return err
	}
	for i, l := range doc.Layers {
		err := c.store.present(l.Digest, l.Size)
		if errdefs.IsNotFound(err) && i < len(diffIDs) {
			if c.store.present(diffIDs[i], -1) == nil {
				continue
			}
			err = fmt.Errorf("%w, nor is its tar %s", err, diffIDs[i])
		}
		if err != nil && !(errdefs.IsNotFound(err) && foreign(l)) {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return nil
}

// foreign layers are not distributed with an image (image-spec layer.md,
// "Non-Distributable Layers").
func foreign(l ocispec.Descriptor) bool {
	return strings.Contains(l.MediaType, ".nondistributable.") || strings.Contains(l.MediaType, ".foreign.")
}

const mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"

// diffIDs returns the digests of an image's uncompressed layers, lowest first.
// Something that isn't an image, such as a chart or a signature, has none.
func (s *Store) diffIDs(config ocispec.Descriptor) ([]digest.Digest, error) {
	if config.MediaType != ocispec.MediaTypeImageConfig && config.MediaType != mediaTypeDockerConfig {
		return nil, nil
	}
	data, err := s.Read(config.Digest)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var doc struct {
		RootFS rootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read config %s: %w: %w", config.Digest, err, errdefs.ErrInvalidArgument)
	}
	return doc.RootFS.DiffIDs, nil
}
