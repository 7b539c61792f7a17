package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// systemCommand is the group `shale system`.
func systemCommand(e *engine.Engine) *cobra.Command {
	df, prune := systemDFCommand(e), systemPruneCommand(e)
	wantsNamespace(df) // unpacked layers have files of other owners
	wantsNamespace(prune)
	return group("system", "Manage shale", df, infoCommand(e), prune)
}
