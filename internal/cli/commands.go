package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shaleproject/shale/internal/engine"
)

// entry is a command of the top level: the name that it answers to, and how it
// is made.
type entry struct {
	group string
	name  string
	make  func(*engine.Engine) *cobra.Command
}

// entries are all commands in the order and the groups of `shale --help`. A
// command that Docker has under two names (`images` and `image ls`) is made
// twice.
var entries = []entry{
	{common, "run", runCommand},
	{common, "exec", execCommand},
	{common, "ps", psCommand},
	{common, "build", buildCommand},
	{common, "pull", pullCommand},
	{common, "push", pushCommand},
	{common, "images", func(e *engine.Engine) *cobra.Command { return imagesCommand(e, "images") }},
	{common, "login", loginCommand},
	{common, "logout", logoutCommand},

	{management, "builder", func(e *engine.Engine) *cobra.Command { return builderCommand(e, "builder") }},
	{management, "buildx", func(e *engine.Engine) *cobra.Command { return builderCommand(e, "buildx") }},
	{management, "container", containerCommand},
	{management, "image", imageCommand},
	{management, "manifest", manifestCommand},
	{management, "registry", registryCommand},
	{management, "system", systemCommand},
	{management, "volume", volumeCommand},

	{other, "attach", attachCommand},
	{other, "commit", commitCommand},
	{other, "cp", cpCommand},
	{other, "create", createCommand},
	{other, "debug", debugCommand},
	{other, "diff", diffCommand},
	{other, "export", exportCommand},
	{other, "fsck", fsckCommand},
	{other, "gc", gcCommand},
	{other, "history", historyCommand},
	{other, "import", importCommand},
	{other, "info", infoCommand},
	{other, "inspect", inspectCommand},
	{other, "kill", killCommand},
	{other, "load", loadCommand},
	{other, "logs", logsCommand},
	{other, "pause", pauseCommand},
	{other, "port", portCommand},
	{other, "rename", renameCommand},
	{other, "restart", restartCommand},
	{other, "rm", rmCommand},
	{other, "rmi", func(e *engine.Engine) *cobra.Command { return rmiCommand(e, "rmi") }},
	{other, "save", saveCommand},
	{other, "start", startCommand},
	{other, "stop", stopCommand},
	{other, "tag", tagCommand},
	{other, "top", topCommand},
	{other, "unpause", unpauseCommand},
	{other, "version", versionCommand},
	{other, "wait", waitCommand},
}

// addCommands puts the commands that the line args can mean into root: the one
// that it names or, where it names none of them (help, completion, a typing
// error), all. Making every flag of every command takes as long as `version`
// takes altogether.
func addCommands(root *cobra.Command, e *engine.Engine, args []string) {
	named := firstWord(root.Flags(), args)
	known := false
	for _, entry := range entries {
		known = known || entry.name == named
	}
	for _, entry := range entries {
		if known && entry.name != named {
			continue
		}
		cmd := entry.make(e)
		cmd.GroupID = entry.group
		root.AddCommand(cmd)
	}
	completeArguments(root, e)
}

// firstWord is the first argument that is neither one of flags nor the value
// of one; "" if there is none.
func firstWord(flags *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			return arg
		}
		var flag *pflag.Flag
		switch name, isLong := strings.CutPrefix(arg, "--"); {
		case isLong && !strings.Contains(name, "="):
			flag = flags.Lookup(name)
		case !isLong && len(arg) == 2:
			flag = flags.ShorthandLookup(arg[1:])
		}
		if flag != nil && flag.NoOptDefVal == "" {
			i++
		}
	}
	return ""
}
