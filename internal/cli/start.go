package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func startCommand(e *engine.Engine) *cobra.Command {
	var attach, interactive, sigProxy bool
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			if !attach && !interactive {
				return each(cmd, args, func(name string) error { return containers.Start(cmd.Context(), name) })
			}
			if len(args) > 1 {
				return invalid("you cannot start and attach multiple containers at once")
			}
			info, err := containers.Inspect(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			streams := consoleOf(cmd, []string{"stdin", "stdout", "stderr"})
			con, err := attachConsole(streams.in, streams.out, streams.err, interactive && info.Config.OpenStdin, info.Config.Tty, sigProxy)
			if err != nil {
				return err
			}
			exit, err := containers.Run(context.WithoutCancel(cmd.Context()), args[0], con.io, con.signals)
			if cerr := con.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return startFailure(err)
			}
			return exitCode(exit.Code)
		},
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	_ = cmd.Flags().MarkHidden("sig-proxy")
	return needsNamespace(cmd)
}
