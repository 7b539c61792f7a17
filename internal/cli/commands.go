package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// addCommands puts every command into its group. A command that Docker has
// under two names (`images` and `image ls`) is made twice.
func addCommands(root *cobra.Command, e *engine.Engine) {
	root.AddCommand(grouped(common,
		runCommand(e),
		execCommand(e),
		psCommand(e),
		buildCommand(e),
	)...)
	root.AddCommand(grouped(management,
		containerCommand(e),
	)...)
	root.AddCommand(grouped(other,
		createCommand(e),
		killCommand(e),
		logsCommand(e),
		portCommand(e),
		renameCommand(e),
		restartCommand(e),
		rmCommand(e),
		startCommand(e),
		stopCommand(e),
		waitCommand(e),
		infoCommand(e),
		versionCommand(e),
	)...)
}
