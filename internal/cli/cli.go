// Package cli is Docker's command line: one file a command, each of which
// parses its flags, calls the engine once and prints.
//
// Words, columns and exit codes are Docker's. Results go to standard output;
// what is for the person waiting, and errors, to standard error. An error is
// one line that says what was attempted, on what, and why; a hint about what
// to do is a line of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// Streams are the three files of the process.
type Streams struct {
	In       *os.File
	Out, Err *os.File
}

// Run carries out the command line args (without the program's name) and
// returns the exit code of the process.
func Run(ctx context.Context, e *engine.Engine, streams Streams, args []string) int {
	root := rootCommand(e, args)
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	e.Config.Waiting = func(host string, why error, d time.Duration) {
		if d >= time.Second {
			fmt.Fprintf(streams.Err, "registry %s: %s; trying again in %d s\n", host, why, (d+time.Second-1)/time.Second)
		}
	}
	err := root.ExecuteContext(ctx)
	code := report(streams.Err, err)
	var by Interrupted
	if errors.Is(err, context.Canceled) && code == exitInterrupted && errors.As(context.Cause(ctx), &by) {
		code = 128 + int(by.Signal)
	}
	return code
}

// Interrupted is the cause that a context ends with because of a signal. The
// exit code is then that of a program that the signal ends, as Docker's.
type Interrupted struct{ Signal syscall.Signal }

func (Interrupted) Error() string { return context.Canceled.Error() }

// Is says that it is a [context.Canceled].
func (Interrupted) Is(target error) bool { return target == context.Canceled }

// rootCommand is the tree of commands, as far as the command line args needs
// it; the whole tree without any.
func rootCommand(e *engine.Engine, args []string) *cobra.Command {
	root := &cobra.Command{
		Use:              "shale [OPTIONS] COMMAND [ARG...]",
		Short:            "Build, store, ship and run container images, with no daemon",
		SilenceErrors:    true,
		SilenceUsage:     true,
		TraverseChildren: true,
		Args:             unknownCommand,
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return enterNamespace(e, cmd)
		},
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	flags := root.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&e.Config.Root, "root", e.Config.Root, "Directory of the store")
	flags.StringVar(&e.Config.DockerConfig, "config", e.Config.DockerConfig, "Location of Docker's client config files")
	flags.StringSliceVar(&e.Config.Insecure, "insecure-registry", e.Config.Insecure, "Registry that may be spoken to over http or with an unknown certificate")
	flags.StringVar(&e.Config.Driver, "driver", e.Config.Driver, `How layers become a file system: "erofs" or "overlay" (default: what the kernel and your rights allow)`)
	flags.BoolVarP(&e.Config.Debug, "debug", "D", e.Config.Debug, "Write logs to standard error")
	flags.BoolP("version", "v", false, "Print version information and quit")
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)

	root.AddGroup(
		&cobra.Group{ID: common, Title: "Common Commands:"},
		&cobra.Group{ID: management, Title: "Management Commands:"},
		&cobra.Group{ID: other, Title: "Commands:"},
	)
	addCommands(root, e, args)
	root.SetHelpCommandGroupID(other)
	root.SetCompletionCommandGroupID(other)
	layOutHelp(root)
	return root
}

// The groups of `shale --help`, as Docker has them.
const (
	common     = "common"
	management = "management"
	other      = "other"
)

// ExitError ends the process with Code. Err may be nil: then there is nothing
// more to say (the exit code of a container's process, say).
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Exit codes of ours, as Docker's.
const (
	exitFailure     = 1
	exitDiffers     = 3   // build --verify has made two images
	exitInterrupted = 130 // by SIGINT
	exitUsage       = 125 // a flag that does not parse; a container that could not be made
)

// hinted is met by errors that know what the user could do about them. The
// hint is printed on a line of its own.
type hinted interface{ Hint() string }

// report prints err, if there is something to print, and returns the exit
// code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailure
	var exit *ExitError
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(w, usage.Error())
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "shale: interrupted")
		code = exitInterrupted
	default:
		for _, err := range apart(err) {
			fmt.Fprintf(w, "shale: %s\n", withoutClass(err))
		}
	}
	var hint hinted
	if errors.As(err, &hint) && hint.Hint() != "" {
		fmt.Fprintf(w, "hint: %s\n", hint.Hint())
	}
	return code
}

// withoutClass is the text of err without the class that ends its chain, where
// the words before it have said as much: it is meant for programs. The same
// words from the kernel ("invalid argument") are the cause, and stay.
func withoutClass(err error) string {
	s := strings.TrimSpace(err.Error())
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrConflict, errdefs.ErrDataLoss, errdefs.ErrUnavailable} {
		if text, found := strings.CutSuffix(s, ": "+class.Error()); found && text != "" && errors.Is(err, class) {
			return text
		}
	}
	if text, found := strings.CutSuffix(s, ": "+errdefs.ErrNotFound.Error()); found && (strings.Contains(text, "no such ") || strings.HasSuffix(text, " not found")) {
		return text
	}
	return s
}
