package image

import (
	"encoding/json"
	"fmt"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is an image's configuration: OCI's, with the fields that Docker
// adds (HEALTHCHECK, ONBUILD, SHELL).
type Config = dockerspec.DockerOCIImage

// legacy holds the fields of Docker's configs that are in no specification
// and that inspect still shows.
type legacy struct {
	Parent        string `json:"parent"`
	Comment       string `json:"comment"`
	DockerVersion string `json:"docker_version"`
}

// parseConfig verifies data against desc and reads it as an image's
// configuration with layers layers; -1 accepts any number.
func parseConfig(desc ocispec.Descriptor, data []byte, layers int) (*Config, error) {
	if err := verify(desc, data); err != nil {
		return nil, err
	}
	if _, err := topKeys(data); err != nil {
		return nil, malformed("config %s: %s", desc.Digest, err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, malformed("config %s: %s", desc.Digest, err)
	}
	if err := checkConfig(&c, layers); err != nil {
		return nil, fmt.Errorf("config %s: %w", desc.Digest, err)
	}
	return &c, nil
}

func checkConfig(c *Config, layers int) error {
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return malformed("rootfs has the unknown type %.80q", c.RootFS.Type)
	}
	if layers >= 0 && len(c.RootFS.DiffIDs) != layers {
		return malformed("config names %d layers, the manifest %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDescriptor(ocispec.Descriptor{Digest: d}); err != nil {
			return err
		}
	}
	return nil
}
