package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// How BuildKit keeps attestations (buildkit, docs/attestations/
// attestation-storage.md): beside the manifest of an image its index has a
// second one, of no platform, whose layers are in-toto statements about the
// first.
const (
	attestation       = "vnd.docker.reference.type" // marks manifests that can't be run
	attestationTarget = "vnd.docker.reference.digest"
	attestationKind   = "attestation-manifest"
	attestationType   = "application/vnd.docker.attestation.manifest.v1+json"
	predicateType     = "in-toto.io/predicate-type"
	statementType     = "application/vnd.in-toto+json"
	statementVersion  = "https://in-toto.io/Statement/v1"
)

// Attestation is something that is known of an image: an in-toto statement,
// but for the digest of what it is about.
type Attestation struct {
	// Subjects are the names of the image, as package URLs. There may be
	// none.
	Subjects []string

	PredicateType string
	Predicate     json.RawMessage
}

// attested is an attestation manifest and what it refers to.
type attested struct {
	desc  ocispec.Descriptor // as an index has it
	raw   []byte
	blobs map[digest.Digest][]byte // the config and the statements
}

// attest makes the attestation manifest for the image manifest target.
func attest(target ocispec.Descriptor, list []Attestation) (attested, error) {
	var layers []ocispec.Descriptor
	blobs := map[digest.Digest][]byte{}
	for _, a := range list {
		data, err := a.statement(target)
		if err != nil {
			return attested{}, fmt.Errorf("write attestation %s: %w", a.PredicateType, err)
		}
		desc := describe(statementType, data)
		desc.Annotations = map[string]string{predicateType: a.PredicateType}
		blobs[desc.Digest] = data
		layers = append(layers, desc)
	}
	return attestedBy(target, layers, blobs)
}

func attestedBy(target ocispec.Descriptor, layers []ocispec.Descriptor, blobs map[digest.Digest][]byte) (attested, error) {
	config := ocispec.DescriptorEmptyJSON
	blobs[config.Digest] = config.Data
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: attestationType,
		Config:       config,
		Layers:       layers,
		Subject:      &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size},
	})
	if err != nil {
		return attested{}, err
	}
	desc := describe(ocispec.MediaTypeImageManifest, raw)
	desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	desc.Annotations = map[string]string{attestation: attestationKind, attestationTarget: target.Digest.String()}
	return attested{desc: desc, raw: raw, blobs: blobs}, nil
}

// subject is what a statement is about (in-toto/attestation,
// spec/v1/resource_descriptor.md).
type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

func (a Attestation) statement(target ocispec.Descriptor) ([]byte, error) {
	names := a.Subjects
	if len(names) == 0 {
		names = []string{"_"}
	}
	var subjects []subject
	for _, name := range names {
		subjects = append(subjects, subject{name, map[string]string{"sha256": target.Digest.Encoded()}})
	}
	return json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{statementVersion, a.PredicateType, subjects, a.Predicate})
}

// readAttested reads an attestation manifest and its blobs from the store.
func (i *Images) readAttested(desc ocispec.Descriptor) (attested, *ocispec.Manifest, error) {
	doc, err := i.attestationDocument(desc)
	if err != nil {
		return attested{}, nil, err
	}
	blobs := map[digest.Digest][]byte{}
	for _, d := range attestationBlobs(doc.manifest) {
		if blobs[d.Digest], err = i.readBlob(d); err != nil {
			return attested{}, nil, fmt.Errorf("attestation %s: %w", short(desc.Digest), err)
		}
	}
	return attested{desc: desc, raw: doc.raw, blobs: blobs}, doc.manifest, nil
}

// attestationDocument reads an attestation manifest from the store.
func (i *Images) attestationDocument(desc ocispec.Descriptor) (document, error) {
	data, err := i.Store.Read(desc.Digest)
	if err != nil {
		return document{}, err
	}
	doc, err := parseAny(desc, data)
	if err == nil {
		err = checkAttestation(doc)
	}
	return doc, err
}

// What an attestation may hold, in bytes and statements. It is in memory
// twice while it is written anew, which bounds it below the 80 MiB that
// BuildKit allows.
const (
	maxStatement  = 32 << 20
	maxStatements = 64
)

func checkAttestation(doc document) error {
	if doc.manifest == nil {
		return malformed("attestation %s is an index", doc.desc.Digest)
	}
	var sum int64
	blobs := attestationBlobs(doc.manifest)
	for _, d := range blobs {
		sum += min(d.Size, maxStatement+1)
	}
	if len(blobs) > maxStatements || sum > maxStatement {
		return malformed("attestation %s is larger than %d MiB", doc.desc.Digest, maxStatement>>20)
	}
	return nil
}

func attestationBlobs(m *ocispec.Manifest) []ocispec.Descriptor {
	return append([]ocispec.Descriptor{m.Config}, m.Layers...)
}

// readBlob reads a blob of the store whose size is known to be bearable.
func (i *Images) readBlob(desc ocispec.Descriptor) ([]byte, error) {
	b, err := i.Store.Blob(desc.Digest)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(io.LimitReader(b, desc.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return data, verify(desc, data)
}

// putBlob stores what may be larger than a document.
func (i *Images) putBlob(ctx context.Context, l *store.Lease, d digest.Digest, data []byte) error {
	if _, err := i.Store.Stat(d); err == nil {
		return l.Keep(d)
	}
	in, err := i.Store.Ingest(l)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Write(data); err != nil {
		return err
	}
	_, _, err = in.Commit(ctx, d, int64(len(data)))
	return err
}

// putAttested stores an attestation manifest and what it refers to.
func (i *Images) putAttested(ctx context.Context, l *store.Lease, a attested) error {
	for _, d := range sorted(a.blobs) {
		if err := i.putBlob(ctx, l, d, a.blobs[d]); err != nil {
			return err
		}
	}
	return i.putBlob(ctx, l, a.desc.Digest, a.raw)
}

// about returns the same attestation for another manifest of the same image,
// one whose layers are compressed in another way.
func (i *Images) about(desc, from, to ocispec.Descriptor) (attested, error) {
	old, manifest, err := i.readAttested(desc)
	if err != nil || from.Digest == to.Digest {
		return old, err
	}
	blobs := map[digest.Digest][]byte{}
	layers := slices.Clone(manifest.Layers)
	for n, l := range layers {
		data := old.blobs[l.Digest]
		if l.MediaType == statementType {
			if data, err = aboutOther(data, from.Digest, to.Digest); err != nil {
				return attested{}, fmt.Errorf("attestation %s: %w", short(l.Digest), err)
			}
		}
		layers[n].Digest, layers[n].Size = digest.FromBytes(data), int64(len(data))
		blobs[layers[n].Digest] = data
	}
	return attestedBy(to, layers, blobs)
}

// saidOf returns what the store has of what the index of img says of it, for
// target, a manifest of the same image.
func (i *Images) saidOf(img *Image, target ocispec.Descriptor) ([]attested, error) {
	doc, err := i.document(img.Target)
	if err != nil || doc.index == nil {
		return nil, err
	}
	var said []attested
	for _, m := range attestationsOf(doc.index, img.Manifest.Digest) {
		if !i.hasAttestation(m) {
			continue
		}
		a, err := i.about(m, img.Manifest, target)
		if err != nil {
			return nil, err
		}
		said = append(said, a)
	}
	return said, nil
}

// aboutOther writes another digest into the subjects of a statement and
// leaves the rest as it is.
func aboutOther(statement []byte, from, to digest.Digest) ([]byte, error) {
	var fields struct {
		Type          string            `json:"_type"`
		PredicateType string            `json:"predicateType"`
		Subject       []json.RawMessage `json:"subject"`
		Predicate     json.RawMessage   `json:"predicate"`
	}
	if err := json.Unmarshal(statement, &fields); err != nil {
		return nil, malformed("statement: %s", err)
	}
	for n, raw := range fields.Subject {
		var s subject
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, malformed("subject of a statement: %s", err)
		}
		if s.Digest["sha256"] != from.Encoded() {
			continue
		}
		s.Digest["sha256"] = to.Encoded()
		data, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		fields.Subject[n] = data
	}
	return json.Marshal(fields)
}

// isAttestation tells whether an entry of an index is an attestation.
func isAttestation(m ocispec.Descriptor) bool { return m.Annotations[attestation] == attestationKind }

// attestationsOf returns the attestations in index for an image manifest.
func attestationsOf(index *ocispec.Index, target digest.Digest) []ocispec.Descriptor {
	var list []ocispec.Descriptor
	for _, m := range index.Manifests {
		if isAttestation(m) && m.Annotations[attestationTarget] == target.String() {
			list = append(list, m)
		}
	}
	return list
}

// indexOf is an index of manifests.
func indexOf(manifests ...ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
	return describe(ocispec.MediaTypeImageIndex, data), data, err
}
