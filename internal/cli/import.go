package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func importCommand(e *engine.Engine) *cobra.Command {
	var (
		o        image.ImportOptions
		platform string
	)
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Args:  between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			if len(args) > 1 {
				o.Name = args[1]
			}
			if o.Message == "" {
				o.Message = "Imported from " + args[0]
			}
			in, err := openSource(cmd.Context(), cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			if o.Source = args[0]; o.Source == "-" {
				o.Source = ""
			}
			id, err := images.Import(cmd.Context(), in, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), id)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	flags.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	flags.StringVar(&platform, "platform", "", "Set platform of the image")
	return cmd
}

// openSource opens what the argument of import names: a file, a URL, or
// standard input.
func openSource(ctx context.Context, stdin io.Reader, source string) (io.ReadCloser, error) {
	switch {
	case source == "-":
		return io.NopCloser(stdin), nil
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			return nil, fmt.Errorf("get %s: %s", source, resp.Status)
		}
		return resp.Body, nil
	}
	return os.Open(source)
}
