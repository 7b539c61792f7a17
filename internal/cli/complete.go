package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

// everyArgument is how many arguments of a command can be completed if there
// is no limit.
const everyArgument = -1

// completeArguments lets the shell offer the names of containers where a
// command wants one, and those of images to run and create.
func completeArguments(root *cobra.Command, e *engine.Engine) {
	most := map[string]int{
		"exec": 1, "kill": everyArgument, "logs": 1, "port": 1, "rename": 1, "restart": everyArgument,
		"rm": everyArgument, "start": everyArgument, "stop": everyArgument, "wait": everyArgument,
	}
	for _, cmd := range root.Commands() {
		switch n, found := most[cmd.Name()]; {
		case cmd.ValidArgsFunction != nil:
		case cmd.Name() == "container":
			completeArguments(cmd, e)
		case found:
			cmd.ValidArgsFunction = completeContainers(e, n)
		case cmd.Name() == "run", cmd.Name() == "create":
			cmd.ValidArgsFunction = completeImages(e, 1)
		}
	}
}

// completeContainers offers the names of containers for the first so many
// arguments.
func completeContainers(e *engine.Engine, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveDefault
		}
		containers, err := e.Containers()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		running := cmd.Name() == "exec" || cmd.Name() == "kill" || cmd.Name() == "stop"
		list, err := containers.List(cmd.Context(), container.ListOptions{All: !running})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
