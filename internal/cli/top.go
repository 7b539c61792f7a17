package cli

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func topCommand(e *engine.Engine) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			pids, err := containers.Processes(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			options := args[1:]
			if len(options) == 0 {
				options = []string{"-ef"}
			}
			// As in Docker, the host's ps knows the columns.
			out, err := exec.CommandContext(cmd.Context(), "ps", options...).Output()
			if err != nil {
				return fmt.Errorf("run ps %s: %w", strings.Join(options, " "), err)
			}
			return printProcesses(cmd, string(out), pids)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return needsNamespace(cmd)
}

// printProcesses prints those lines of ps whose column PID is one of pids.
func printProcesses(cmd *cobra.Command, ps string, pids []int) error {
	header, rest, _ := strings.Cut(ps, "\n")
	column := slices.Index(strings.Fields(header), "PID")
	if column < 0 {
		return invalid("ps shows no column PID with these options")
	}
	fmt.Fprintln(cmd.OutOrStdout(), header)
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprint(cmd.OutOrStdout(), line)
		}
	}
	return nil
}
