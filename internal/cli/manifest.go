package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func manifestCommand(e *engine.Engine) *cobra.Command {
	return group("manifest", "Manage image manifests and manifest lists", manifestInspectCommand(e))
}

func manifestInspectCommand(e *engine.Engine) *cobra.Command {
	var verbose, insecure bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] MANIFEST",
		Short: "Display an image manifest, or manifest list, of a registry",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if insecure {
				named, err := image.ParseName(args[0])
				if err != nil {
					return err
				}
				host, _, _ := strings.Cut(named.Name(), "/")
				e.Config.Insecure = append(e.Config.Insecure, host)
			}
			images, err := e.Images()
			if err != nil {
				return err
			}
			list, err := images.Manifests(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			data := list[0].Raw
			if verbose {
				if data, err = verboseManifests(args[0], list); err != nil {
					return err
				}
			}
			var out bytes.Buffer
			if err := json.Indent(&out, bytes.TrimSpace(data), "", "\t"); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), out.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

// manifestEntry is one manifest in the words of `docker manifest inspect -v`.
type manifestEntry struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// verboseManifests shows the one manifest, or each that an index names.
func verboseManifests(name string, list []image.Manifest) ([]byte, error) {
	var entries []manifestEntry
	for _, m := range list {
		entry := manifestEntry{Ref: name, Descriptor: m.Descriptor, Raw: m.Raw}
		if m.Config != nil {
			entry.Descriptor.Platform = &m.Config.Platform
		}
		if m.Descriptor.MediaType == ocispec.MediaTypeImageManifest {
			entry.OCIManifest = m.Raw
		} else {
			entry.SchemaV2Manifest = m.Raw
		}
		entries = append(entries, entry)
	}
	if len(entries) == 1 {
		return json.Marshal(entries[0])
	}
	for n := range entries {
		entries[n].Ref = name + "@" + entries[n].Descriptor.Digest.String()
	}
	return json.Marshal(entries[1:])
}

func imageCopyCommand(e *engine.Engine) *cobra.Command {
	var platform string
	cmd := &cobra.Command{
		Use:   "copy [OPTIONS] SOURCE[:TAG|@DIGEST] TARGET[:TAG]",
		Short: "Copy an image, with all its platforms, from one registry to another",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			var o image.CopyOptions
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			show := newTransfer(cmd.OutOrStdout())
			defer show.close()
			o.Progress = show.sink()
			_, err = images.Copy(cmd.Context(), args[0], args[1], o)
			return err
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "Copy only the given platform")
	return cmd
}
