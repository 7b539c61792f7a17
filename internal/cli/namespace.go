package cli

import (
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

// needsNamespace marks a command that can't do its work as an ordinary user
// outside a user namespace.
func needsNamespace(c *cobra.Command) *cobra.Command { return annotate(c, namespaceNeeded) }

// wantsNamespace marks a command that an ordinary user may run either way.
func wantsNamespace(c *cobra.Command) *cobra.Command { return annotate(c, namespaceWanted) }

func annotate(c *cobra.Command, value string) *cobra.Command {
	if c.Annotations == nil {
		c.Annotations = make(map[string]string)
	}
	c.Annotations[namespaceKey] = value
	return c
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
		e.Config.NoNamespace = err
		return nil
	case err != nil && cmd.Name() == "run":
		return startFailure(err)
	case err != nil:
		return err
	}
	return &ExitError{Code: code}
}
