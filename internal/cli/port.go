package cli

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func portCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container",
		Args:  between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			ports, err := containers.Ports(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			want := ""
			if len(args) == 2 {
				if want = args[1]; !strings.Contains(want, "/") {
					want += "/tcp"
				}
			}
			return printPorts(cmd, ports, want)
		},
	}
}

func printPorts(cmd *cobra.Command, ports []container.PortBinding, want string) error {
	found := want == ""
	for _, p := range ports {
		switch want {
		case "":
			fmt.Fprintf(cmd.OutOrStdout(), "%s -> %s\n", p.Inner, p.Outer)
		case p.Inner:
			found = true
			fmt.Fprintln(cmd.OutOrStdout(), p.Outer)
		}
	}
	if !found {
		return fmt.Errorf("no public port '%s' published: %w", want, errdefs.ErrNotFound)
	}
	return nil
}
