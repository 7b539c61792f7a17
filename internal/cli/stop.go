package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func stopCommand(e *engine.Engine) *cobra.Command {
	var signal string
	var timeout int
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Stop one or more running containers",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return eachAtOnce(cmd, args, func(name string) error {
				return containers.Stop(cmd.Context(), name, signal, seconds(cmd, timeout))
			})
		},
	}
	addStopFlags(cmd, &signal, &timeout)
	return needsNamespace(cmd)
}

func restartCommand(e *engine.Engine) *cobra.Command {
	var signal string
	var timeout int
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Restart one or more containers",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return eachAtOnce(cmd, args, func(name string) error {
				return containers.Restart(cmd.Context(), name, signal, seconds(cmd, timeout))
			})
		},
	}
	addStopFlags(cmd, &signal, &timeout)
	return needsNamespace(cmd)
}

func addStopFlags(cmd *cobra.Command, signal *string, timeout *int) {
	cmd.Flags().StringVarP(signal, "signal", "s", "", "Signal to send to the container")
	cmd.Flags().IntVarP(timeout, "timeout", "t", 10, "Seconds to wait before killing the container")
	cmd.Flags().IntVar(timeout, "time", 10, "Seconds to wait before killing the container")
	_ = cmd.Flags().MarkHidden("time")
}

// seconds is nil if the flag was not given: then the container's own counts.
func seconds(cmd *cobra.Command, timeout int) *int {
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		return &timeout
	}
	return nil
}
