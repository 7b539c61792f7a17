package image

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerArchive reads manifest.json (moby, image/spec/v1.2.md).
func (a *archive) dockerArchive(platform *ocispec.Platform) ([]*archived, error) {
	data, _ := a.document("manifest.json")
	var items []archiveItem
	if err := json.Unmarshal(data, &items); err != nil {
		return nil, malformed("manifest.json: %s", err)
	}
	var list []*archived
	layout := a.layoutManifests()
	for _, item := range items {
		img, err := a.dockerImage(item, layout)
		if err != nil {
			return nil, err
		}
		if platform != nil {
			if err := a.wants(img, *platform); err != nil {
				return nil, err
			}
		}
		list = append(list, img)
	}
	if len(list) == 0 {
		return nil, malformed("manifest.json names no image")
	}
	return list, nil
}

func (a *archive) dockerImage(item archiveItem, layout map[digest.Digest]*archived) (*archived, error) {
	raw, ok := a.document(item.Config)
	if !ok {
		return nil, malformed("the archive has no config %.200q", item.Config)
	}
	desc := describe(ocispec.MediaTypeImageConfig, raw)
	if err := configName(item.Config, desc.Digest); err != nil {
		return nil, err
	}
	config, err := parseConfig(desc, raw, len(item.Layers))
	if err != nil {
		return nil, err
	}
	for n, name := range item.Layers {
		l, err := a.find(name)
		if err != nil {
			return nil, err
		}
		if l.diffID != config.RootFS.DiffIDs[n] {
			return nil, malformed("layer %.200q has DiffID %s, the config says %s", name, l.diffID, config.RootFS.DiffIDs[n])
		}
	}
	img := &archived{id: desc.Digest}
	for _, tag := range item.RepoTags {
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			return nil, badName(tag, err)
		}
		img.names = append(img.names, reference.TagNameOnly(named))
	}
	if from := layout[desc.Digest]; from != nil {
		img.target, img.documents, img.layers = from.target, from.documents, from.layers
		return img, nil
	}
	target, manifest, err := a.images.manifestOf(raw, config.RootFS.DiffIDs)
	img.target, img.documents = target, [][]byte{raw, manifest}
	return img, err
}

// configName refuses a config whose name is the id of something else. Names
// that are no digests say nothing.
func configName(name string, d digest.Digest) error {
	base := strings.TrimSuffix(path.Base(name), ".json")
	if claimed := digest.NewDigestFromEncoded(digest.SHA256, base); claimed.Validate() == nil && claimed != d {
		return malformed("config %.200q has digest %s", name, d)
	}
	return nil
}

// wants says whether an image is for a platform.
func (a *archive) wants(img *archived, platform ocispec.Platform) error {
	var c Config
	if err := json.Unmarshal(img.documents[0], &c); err != nil {
		return malformed("config %s: %s", img.id, err)
	}
	if !serves(c.Platform, platform) {
		return &otherPlatform{c.Platform, platform}
	}
	return nil
}
