package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// containerCommand is `shale container`: the commands for containers under
// their second name.
func containerCommand(e *engine.Engine) *cobra.Command {
	ls := psCommand(e)
	ls.Use, ls.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	return group("container", "Manage containers",
		attachCommand(e), commitCommand(e), cpCommand(e), createCommand(e), diffCommand(e), execCommand(e), exportCommand(e), containerInspectCommand(e), killCommand(e), logsCommand(e), ls, pauseCommand(e), portCommand(e),
		containerPruneCommand(e), renameCommand(e), restartCommand(e), rmCommand(e), runCommand(e), startCommand(e),
		stopCommand(e), topCommand(e), unpauseCommand(e), waitCommand(e),
	)
}
