package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/progress"
)

func runCommand(e *engine.Engine) *cobra.Command {
	var f containerFlags
	var detach, sigProxy bool
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// It works for milliseconds and then only copies: the default
			// would collect garbage once, in the middle of the start.
			debug.SetGCPercent(400)
			return startFailure(run(cmd, e, &f, args, detach, sigProxy))
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Run container in background and print container ID")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	return needsNamespace(cmd)
}

func run(cmd *cobra.Command, e *engine.Engine, f *containerFlags, args []string, detach, sigProxy bool) error {
	o, containers, err := newContainer(cmd, e, f, args)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if detach {
		if len(f.attach) > 0 {
			return invalid("conflicting options: cannot specify both --attach and --detach")
		}
		return runDetached(ctx, cmd, containers, f, o)
	}
	attached, err := attachedStreams(f)
	if err != nil {
		return err
	}
	o.Process.Attached = attached
	streams := consoleOf(cmd, attached)
	stdin := f.interactive && slices.Contains(attached, "stdin")
	if err := needsTerminal(streams.in, stdin, f.tty); err != nil {
		return err
	}
	// From the start on, signals are the container's.
	running := context.WithoutCancel(ctx)
	c, err := containers.Prepare(ctx, o)
	if err != nil {
		return err
	}
	if err := writeCIDFile(f.cidfile, c.ID()); err != nil {
		return errors.Join(err, c.Discard())
	}
	con, err := attachConsole(streams.in, streams.out, streams.err, stdin, f.tty, sigProxy)
	if err != nil {
		return errors.Join(err, c.Discard())
	}
	exit, err := c.Run(running, con.io, con.signals)
	if cerr := con.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return exitCode(exit.Code)
}

func runDetached(ctx context.Context, cmd *cobra.Command, containers *container.Containers, f *containerFlags, o container.CreateOptions) error {
	id, err := containers.Create(ctx, o)
	if err != nil {
		return err
	}
	if err := writeCIDFile(f.cidfile, id); err != nil {
		return err
	}
	if err := containers.Start(ctx, id); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
	return err
}

// newContainer parses what `run` and `create` share.
func newContainer(cmd *cobra.Command, e *engine.Engine, f *containerFlags, args []string) (o container.CreateOptions, _ *container.Containers, err error) {
	if err := checkCIDFile(f.cidfile); err != nil {
		return o, nil, err
	}
	if f.ignored.runtime != "" {
		e.Config.Runtime = f.ignored.runtime
	}
	if o, err = f.options(cmd.Flags(), args); err != nil {
		return o, nil, err
	}
	if dropped := o.Resources.LimitsDropped(); dropped != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "WARNING: limits are discarded: %v\n", dropped)
	}
	o.Progress = pullProgress(cmd, f.quiet)
	containers, err := e.Containers()
	return o, containers, err
}

// pullProgress shows a pull on standard error: standard output is the
// container's.
func pullProgress(cmd *cobra.Command, quiet bool) progress.Sink {
	if quiet {
		return nil
	}
	return newTransfer(cmd.ErrOrStderr()).sink()
}

// streamsOf are the files of this process that a container is attached to.
type streamsOf struct {
	in       *os.File
	out, err io.Writer
}

func consoleOf(cmd *cobra.Command, attached []string) streamsOf {
	var s streamsOf
	s.in, _ = cmd.InOrStdin().(*os.File)
	if slices.Contains(attached, "stdout") {
		s.out = cmd.OutOrStdout()
	}
	if slices.Contains(attached, "stderr") {
		s.err = cmd.ErrOrStderr()
	}
	return s
}

// attachedStreams are those of --attach or, without it, all.
func attachedStreams(f *containerFlags) ([]string, error) {
	if len(f.attach) == 0 {
		return []string{"stdin", "stdout", "stderr"}, nil
	}
	var all []string
	for _, a := range f.attach {
		a = strings.ToLower(a)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, a) {
			return nil, invalid(`invalid argument %q for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`, a)
		}
		all = append(all, a)
	}
	return all, nil
}

// exitCode ends this process as the container ended.
func exitCode(code int) error {
	if code == 0 {
		return nil
	}
	return &ExitError{Code: code}
}

// startFailure gives an error that has no exit code yet that of a container
// that could not be started: 126 and 127 for the command, else 125.
func startFailure(err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) || errors.Is(err, context.Canceled) {
		return err
	}
	return &ExitError{Code: container.StartExitCode(err), Err: err}
}

func createCommand(e *engine.Engine) *cobra.Command {
	var f containerFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, containers, err := newContainer(cmd, e, &f, args)
			if err != nil {
				return startFailure(err)
			}
			id, err := containers.Create(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := writeCIDFile(f.cidfile, id); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
			return err
		},
	}
	f.add(cmd.Flags())
	return needsNamespace(cmd)
}
