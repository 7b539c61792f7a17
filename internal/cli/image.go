package cli

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

// imageCommand is the group `shale image`: the commands about images once
// more, under the names that Docker gives them there.
func imageCommand(e *engine.Engine) *cobra.Command {
	return group("image", "Manage images",
		buildCommand(e),
		imageCopyCommand(e),
		historyCommand(e),
		importCommand(e),
		imageInspectCommand(e),
		loadCommand(e),
		imagesCommand(e, "ls", "list"),
		imagePruneCommand(e),
		pullCommand(e),
		pushCommand(e),
		rmiCommand(e, "rm", "remove"),
		saveCommand(e),
		tagCommand(e),
	)
}

// platformFlag reads a --platform flag; nil if it is empty.
func platformFlag(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := image.ParsePlatform(s)
	return &p, err
}
