package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a command line that makes no sense; its text is Docker's.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// flagError tells of a flag that does not parse. The exit code is 125.
func flagError(cmd *cobra.Command, err error) error {
	return &ExitError{exitUsage, &usageError{fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information",
		err, cmd.UseLine(), cmd.CommandPath())}}
}

// unknownCommand is the check of the arguments of a command that only has
// sub-commands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{fmt.Sprintf("shale: unknown command: %s %s\n\nRun '%[1]s --help' for more information",
		cmd.CommandPath(), args[0])}
}

// exactly, atLeast and between are cobra's checks with Docker's words.

func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return wrongArguments(cmd, fmt.Sprintf("at least %s", arguments(n)))
	}
}

func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		switch {
		case most == 0:
			return wrongArguments(cmd, "no arguments")
		case least == most:
			return wrongArguments(cmd, arguments(least))
		case least == 0:
			return wrongArguments(cmd, fmt.Sprintf("at most %s", arguments(most)))
		}
		return wrongArguments(cmd, fmt.Sprintf("at least %d and at most %s", least, arguments(most)))
	}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

func wrongArguments(cmd *cobra.Command, wants string) error {
	verb := "requires"
	if wants == "no arguments" {
		verb = "accepts"
	}
	path := cmd.CommandPath()
	return &usageError{fmt.Sprintf("shale: '%s' %s %s\n\nUsage:  %s\n\nRun '%[1]s --help' for more information",
		path, verb, wants, strings.TrimSpace(cmd.UseLine()))}
}

// group makes a command that only has sub-commands, such as `shale image`.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sub...)
	return cmd
}

// layOutHelp makes every --help of the tree look like Docker's: the usage
// line, the sentence, then commands and options.
func layOutHelp(root *cobra.Command) {
	plainUseLines(root)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate("Usage:  {{.UseLine}}\n\n{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}\n{{end}}" + bodyTemplate)
}

// plainUseLines keeps cobra's "[flags]" out of lines that say [OPTIONS].
func plainUseLines(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		plainUseLines(c)
	}
}

const usageTemplate = "Usage:  {{.UseLine}}\n" + bodyTemplate

const bodyTemplate = `{{if .Aliases}}
Aliases:
  {{.NameAndAliases}}
{{end}}{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableSubCommands}}{{$all := .Commands}}{{range $group := .Groups}}
{{.Title}}
{{range $all}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}{{end}}{{if not .AllChildCommandsHaveGroup}}
Commands:
{{range $all}}{{if and (eq .GroupID "") .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}
{{if .HasParent}}Options:{{else}}Global Options:{{end}}
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableSubCommands}}
Run '{{.CommandPath}} COMMAND --help' for more information on a command.
{{end}}`
