package cli

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/sys"
)

// An ordinary user has no right to mount, to chown or to enter a container's
// namespaces, except as root of a user namespace. A command says with this
// annotation that it is one that needs such a namespace, or that works without
// but can do more with one.
const (
	namespaceKey    = "user-namespace"
	namespaceNeeded = "needed"
	namespaceWanted = "wanted"
)

// needsNamespace marks commands that can't do their work as an ordinary user
// outside a user namespace.
func needsNamespace(commands ...*cobra.Command) []*cobra.Command {
	return annotate(namespaceNeeded, commands)
}

// wantsNamespace marks commands that an ordinary user may run either way.
func wantsNamespace(commands ...*cobra.Command) []*cobra.Command {
	return annotate(namespaceWanted, commands)
}

func annotate(value string, commands []*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		if c.Annotations == nil {
			c.Annotations = make(map[string]string)
		}
		c.Annotations[namespaceKey] = value
	}
	return commands
}

// enterNamespace runs the command again inside a user namespace if its user
// is an ordinary one and the command asks for it.
func enterNamespace(e *engine.Engine, cmd *cobra.Command) error {
	wish := cmd.Annotations[namespaceKey]
	if wish == "" || !e.Config.Rootless || e.Config.Namespaced {
		return nil
	}
	code, err := sys.ReexecInUserNamespace(cmd.Context(), os.Args, e.Config.NamespaceRecord())
	switch {
	case wish == namespaceWanted && (errdefs.IsPermissionDenied(err) || errdefs.IsFailedPrecondition(err)):
		// What needs the namespace after all will say what it misses.
		return nil
	case err != nil:
		return &ExitError{exitUsage, fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
	}
	return &ExitError{Code: code}
}
