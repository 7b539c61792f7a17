package image

import (
	"context"
	"encoding/json"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect is what `docker image inspect` shows of one image, in its order.
type Inspect struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string `json:",omitempty"`
	DockerVersion string
	Author        string
	Config        *dockerspec.DockerOCIImageConfig
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	OsVersion     string `json:",omitempty"`
	Size          int64
	GraphDriver   GraphDriver
	RootFS        RootFS
	Metadata      Metadata
	Descriptor    *ocispec.Descriptor `json:",omitempty"`
	Manifests     []ManifestSummary   `json:",omitempty"` // of an index
}

// ManifestSummary is an entry of an index in Docker's words (moby,
// api/types/image/manifest.go).
type ManifestSummary struct {
	ID              string
	Descriptor      ocispec.Descriptor
	Available       bool
	Kind            string           // "image", "attestation" or "unknown"
	ImageData       *ImageData       `json:",omitempty"`
	AttestationData *AttestationData `json:",omitempty"`
}

// ImageData is what is known of an image without reading it.
type ImageData struct{ Platform ocispec.Platform }

// AttestationData says which manifest an attestation is about.
type AttestationData struct{ For digest.Digest }

// GraphDriver says how layers become a file system.
type GraphDriver struct {
	Data map[string]string
	Name string
}

// RootFS lists the layers, lowest first.
type RootFS struct {
	Type   string
	Layers []digest.Digest `json:",omitempty"`
}

// Metadata is about the image in this store only.
type Metadata struct {
	LastTagTime time.Time `json:",omitzero"`
}

// Inspect describes an image in Docker's words.
func (i *Images) Inspect(ctx context.Context, name string, platform *ocispec.Platform) (Inspect, error) {
	img, err := i.Get(ctx, name, platform)
	if err != nil {
		return Inspect{}, err
	}
	var old legacy
	if err := json.Unmarshal(img.RawConfig, &old); err != nil {
		return Inspect{}, malformed("config %s: %s", img.ConfigDigest, err)
	}
	c := img.Config
	out := Inspect{
		ID:            img.ConfigDigest.String(),
		RepoTags:      []string{},
		RepoDigests:   []string{},
		Parent:        old.Parent,
		Comment:       old.Comment,
		DockerVersion: old.DockerVersion,
		Author:        c.Author,
		Config:        &c.Config,
		Architecture:  c.Architecture,
		Variant:       c.Variant,
		Os:            c.OS,
		OsVersion:     c.OSVersion,
		Size:          i.size(img.DiffIDs),
		GraphDriver:   GraphDriver{Name: "shale"},
		RootFS:        RootFS{Type: "layers", Layers: img.DiffIDs},
		Descriptor:    &img.Target,
	}
	if out.Manifests, err = i.manifestSummaries(img.Target); err != nil {
		return Inspect{}, err
	}
	if out.Comment == "" && len(c.History) > 0 {
		out.Comment = c.History[len(c.History)-1].Comment
	}
	if c.Created != nil {
		out.Created = c.Created.UTC().Format(time.RFC3339Nano)
	}
	s, err := i.summary(ctx, img.ConfigDigest)
	if err != nil {
		return Inspect{}, err
	}
	if s == nil { // its names went while we looked
		return out, nil
	}
	out.RepoTags = append(out.RepoTags, s.RepoTags...)
	out.RepoDigests = append(out.RepoDigests, s.RepoDigests...)
	for _, ref := range s.names {
		named, err := reference.ParseNormalizedNamed(ref.Name)
		if _, tagged := named.(reference.NamedTagged); err == nil && tagged && ref.Updated.After(out.Metadata.LastTagTime) {
			out.Metadata.LastTagTime = ref.Updated
		}
	}
	return out, nil
}

// manifestSummaries lists what an index names; nothing for a manifest.
func (i *Images) manifestSummaries(target ocispec.Descriptor) ([]ManifestSummary, error) {
	doc, err := i.document(target)
	if err != nil || doc.index == nil {
		return nil, err
	}
	var list []ManifestSummary
	for _, m := range doc.index.Manifests {
		s := ManifestSummary{ID: m.Digest.String(), Descriptor: m, Available: i.has(m.Digest), Kind: "unknown"}
		switch {
		case isAttestation(m):
			s.Kind, s.AttestationData = "attestation", &AttestationData{digest.Digest(m.Annotations[attestationTarget])}
		case m.Platform != nil:
			s.Kind, s.ImageData = "image", &ImageData{*m.Platform}
		}
		list = append(list, s)
	}
	return list, nil
}

// summary returns the list entry of the image id, nil if it has none.
func (i *Images) summary(ctx context.Context, id digest.Digest) (*Summary, error) {
	records, err := i.records(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range summaries(records) {
		if s.ID == id {
			return s, nil
		}
	}
	return nil, nil
}
