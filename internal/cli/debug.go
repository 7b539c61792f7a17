package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/sandbox"
)

func debugCommand(e *engine.Engine) *cobra.Command {
	var (
		list            bool
		spec            string
		secretsOf, keys []string
	)
	cmd := &cobra.Command{
		Use:   "debug [OPTIONS] [ID] [-- COMMAND [ARG...]]",
		Short: "Open a shell in a build step that failed",
		Long: `Open a shell in a build step that failed: the latest, or the one called ID.

It begins with the files as the step left them, and has the step's mounts,
environment, working directory, user and network. What it writes is thrown
away, except to cache mounts. Secrets and SSH agents are there if they are given
again. A step is kept until the same build succeeds or fails anew, or until
"builder prune".`,
		Args: debugArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := e.Builder()
			if err != nil {
				return err
			}
			if list {
				if len(args) > 0 {
					return wrongArguments(cmd, "no arguments with --list")
				}
				return listFailures(cmd, b, spec)
			}
			run := build.Run{}
			if run.Secrets, err = secrets(secretsOf, os.LookupEnv); err != nil {
				return err
			}
			if run.Agents, run.Keys, err = agents(keys, os.LookupEnv); err != nil {
				return err
			}
			id, command := debugTarget(cmd, args)
			return debugStep(cmd, b, id, command, run)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&list, "list", false, "List the steps that failed and are kept")
	flags.StringVar(&spec, "format", "", `Format the list: "table", "table TEMPLATE", "json" or a Go template`)
	flags.StringArrayVar(&secretsOf, "secret", nil, `Secret to expose to the command (format: "id=mysecret[,src=/local/secret]")`)
	flags.StringArrayVar(&keys, "ssh", nil, `SSH agent socket or keys to expose to the command (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	return needsNamespace(cmd)
}

// debugArguments wants at most one argument before "--".
func debugArguments(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args = args[:dash]
	}
	if len(args) > 1 {
		return &usageError{fmt.Sprintf("shale: put \"--\" before the command: shale debug %s -- %s\n\nUsage:  %s", args[0], args[1], cmd.UseLine())}
	}
	return nil
}

// debugTarget takes the arguments apart.
func debugTarget(cmd *cobra.Command, args []string) (id string, command []string) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, command = args[:dash], args[dash:]
	}
	if len(args) > 0 {
		id = args[0]
	}
	return id, command
}

// debugStep runs command, or a shell, in the step called id.
func debugStep(cmd *cobra.Command, b *build.Builder, id string, command []string, run build.Run) (err error) {
	step, err := b.Debug(cmd.Context(), id, run)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := step.Close(); err == nil {
			err = cerr
		}
	}()
	in, _ := cmd.InOrStdin().(*os.File)
	out, _ := cmd.OutOrStdout().(*os.File)
	p := build.Program{Args: command, Terminal: in != nil && out != nil && isTerminal(in) && isTerminal(out)}
	if len(command) == 0 {
		p.Args = []string{"/bin/sh"}
		fmt.Fprintf(cmd.ErrOrStderr(), "After exit code %d of %s\n", step.Code, shorten(step.Step, 100))
	}
	for _, flag := range step.Missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "WARNING: %s is not given; the step had it\n", flag)
	}
	con, err := attachConsole(in, cmd.OutOrStdout(), cmd.ErrOrStderr(), true, p.Terminal, true)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	p.Stdin, p.Stdout, p.Stderr = con.io.In, con.io.Out, con.io.Err
	if p.Terminal {
		size := <-con.io.Resize
		p.Width, p.Height = size.Width, size.Height
	}
	p.Started = func(s *sandbox.Sandbox) { go con.steer(s, done) }
	exit, err := step.Run(context.WithoutCancel(cmd.Context()), p)
	close(done)
	if cerr := con.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return debugFailure(err, step.ID, len(command) == 0)
	}
	return exitCode(exit.Code)
}

// steer passes sizes of the terminal and signals on to s.
func (c *console) steer(s *sandbox.Sandbox, done <-chan struct{}) {
	signals := c.signals
	for {
		select {
		case <-done:
			return
		case size := <-c.io.Resize:
			_ = s.Resize(size.Width, size.Height)
		case sig, open := <-signals:
			if !open {
				signals = nil
				continue
			}
			if sig, ok := sig.(syscall.Signal); ok {
				_ = s.Signal(sig, false)
			}
		}
	}
}

// noShellError is an image without a shell.
type noShellError struct {
	id  string
	err error
}

func (e *noShellError) Error() string { return e.err.Error() }
func (e *noShellError) Unwrap() error { return e.err }
func (e *noShellError) Hint() string {
	return "the image has no /bin/sh; name another program: shale debug " + e.id + " -- COMMAND"
}

// shorten cuts a text to n characters at most.
func shorten(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// debugFailure gives an error that lies in the command its exit code.
func debugFailure(err error, id string, shell bool) error {
	var command *sandbox.CommandError
	if !errors.As(err, &command) {
		return err
	}
	if shell {
		err = &noShellError{id, err}
	}
	return &ExitError{Code: command.Code, Err: err}
}

// failureRow has the placeholders of `shale debug --list --format`.
type failureRow struct{ ID, CreatedAt, CreatedSince, ExitCode, Step, Command, Context string }

var failureHeaders = map[string]string{
	"ID": "ID", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "ExitCode": "EXIT CODE", "Step": "STEP", "Command": "COMMAND", "Context": "CONTEXT",
}

func listFailures(cmd *cobra.Command, b *build.Builder, spec string) error {
	shown, err := format.Parse(spec, "{{.ID}}\t{{.CreatedSince}}\t{{.ExitCode}}\t{{.Context}}\t{{.Step}}", failureHeaders)
	if err != nil {
		return err
	}
	failures, err := b.Failures(cmd.Context())
	if err != nil {
		return err
	}
	now := time.Now()
	var rows []failureRow
	for _, f := range failures {
		if spec == "" {
			f.Step = shorten(f.Step, 80)
		}
		rows = append(rows, failureRow{
			ID: f.ID, CreatedAt: createdAt(f.At), CreatedSince: ago(f.At, now), ExitCode: strconv.Itoa(f.Code),
			Step: f.Step, Command: f.Command, Context: f.Context,
		})
	}
	return format.Write(cmd.OutOrStdout(), shown, rows)
}
