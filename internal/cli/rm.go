package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func rmCommand(e *engine.Engine) *cobra.Command {
	var o container.RemoveOptions
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more containers",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return eachAtOnce(cmd, args, func(name string) error {
				err := containers.Remove(cmd.Context(), strings.Trim(name, "/"), o)
				if o.Force && errors.Is(err, errdefs.ErrNotFound) {
					_, err = fmt.Fprintln(cmd.ErrOrStderr(), "shale:", withoutClass(err))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return needsNamespace(cmd)
}

func renameCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Rename a container",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return containers.Rename(cmd.Context(), args[0], args[1])
		},
	}
}
