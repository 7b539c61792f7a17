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
		pullCommand(e),
		pushCommand(e),
		imagesCommand(e, "images"),
		loginCommand(e),
		logoutCommand(e),
	)...)
	root.AddCommand(grouped(management,
		builderCommand(e, "builder"),
		builderCommand(e, "buildx"),
		containerCommand(e),
		imageCommand(e),
		manifestCommand(e),
		registryCommand(e),
		systemCommand(e),
		volumeCommand(e),
	)...)
	root.AddCommand(grouped(other,
		attachCommand(e),
		commitCommand(e),
		cpCommand(e),
		createCommand(e),
		diffCommand(e),
		exportCommand(e),
		fsckCommand(e),
		gcCommand(e),
		historyCommand(e),
		importCommand(e),
		infoCommand(e),
		inspectCommand(e),
		killCommand(e),
		loadCommand(e),
		logsCommand(e),
		pauseCommand(e),
		portCommand(e),
		renameCommand(e),
		restartCommand(e),
		rmCommand(e),
		rmiCommand(e, "rmi"),
		saveCommand(e),
		startCommand(e),
		stopCommand(e),
		tagCommand(e),
		topCommand(e),
		unpauseCommand(e),
		versionCommand(e),
		waitCommand(e),
	)...)
	completeArguments(root, e)
}
