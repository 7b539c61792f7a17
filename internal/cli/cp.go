package cli

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func cpCommand(e *engine.Engine) *cobra.Command {
	var o container.CopyOptions
	var quiet bool
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			from, src := splitCopy(args[0])
			to, dst := splitCopy(args[1])
			switch {
			case from != "" && to != "":
				return invalid("copying between containers is not supported")
			case from != "" && dst == "-":
				return containers.ReadTar(ctx, from, src, cmd.OutOrStdout(), o)
			case from != "":
				return containers.CopyFrom(ctx, from, src, dst, o)
			case to != "" && src == "-":
				return containers.WriteTar(ctx, to, dst, cmd.InOrStdin(), o)
			case to != "":
				return containers.CopyTo(ctx, src, to, dst, o)
			}
			return invalid("must specify at least one container source")
		},
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&o.Owners, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress progress output during copy (there is none)")
	return needsNamespace(cmd)
}

// splitCopy takes the container's name off an argument of cp. A path that
// begins with a dot or a slash has none.
func splitCopy(arg string) (name, path string) {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	name, path, found := strings.Cut(arg, ":")
	if !found {
		return "", arg
	}
	return name, path
}

func exportCommand(e *engine.Engine) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] CONTAINER",
		Short: "Export a container's filesystem as a tar archive",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			if output == "" {
				return containers.Export(cmd.Context(), args[0], cmd.OutOrStdout())
			}
			file, err := os.Create(output)
			if err != nil {
				return err
			}
			defer func() {
				if cerr := file.Close(); err == nil {
					err = cerr
				}
			}()
			return containers.Export(cmd.Context(), args[0], file)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return needsNamespace(cmd)
}
