package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func execCommand(e *engine.Engine) *cobra.Command {
	var o container.ExecOptions
	var detach, interactive bool
	var env, envFiles []string
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  atLeast(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			o.Args = args[1:]
			if o.Env, err = environment(envFiles, env); err != nil {
				return err
			}
			if detach {
				return execFailure(containers.ExecDetached(cmd.Context(), args[0], o))
			}
			streams := consoleOf(cmd, []string{"stdin", "stdout", "stderr"})
			con, err := attachConsole(streams.in, streams.out, streams.err, interactive, o.Terminal, true)
			if err != nil {
				return err
			}
			o.IO, o.Signals = con.io, con.signals
			exit, err := containers.Exec(context.WithoutCancel(cmd.Context()), args[0], o)
			if cerr := con.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return execFailure(err)
			}
			return exitCode(exit.Code)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	flags.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVarP(&o.Terminal, "tty", "t", false, "Allocate a pseudo-TTY")
	listVarP(flags, &env, "env", "e", "Set environment variables")
	listVar(flags, &envFiles, "env-file", "Read in a file of environment variables")
	flags.StringVarP(&o.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	flags.StringVarP(&o.Dir, "workdir", "w", "", "Working directory inside the container")
	flags.BoolVar(&o.Privileged, "privileged", false, "Give extended privileges to the command")
	flags.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container (ignored)")
	return needsNamespace(cmd)
}

// execFailure gives an error that lies in the command its exit code, 126 or
// 127; others have 1, as in Docker.
func execFailure(err error) error {
	if err == nil {
		return nil
	}
	if code := container.StartExitCode(err); code != exitUsage {
		return &ExitError{Code: code, Err: err}
	}
	return err
}
