package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// addCommands puts every command into its group. A command that Docker has
// under two names (`images` and `image ls`) is made twice.
func addCommands(root *cobra.Command, e *engine.Engine) {
	root.AddCommand(grouped(common,
		buildCommand(e),
	)...)
	root.AddCommand(grouped(management)...)
	root.AddCommand(grouped(other,
		infoCommand(e),
		versionCommand(e),
	)...)
}
