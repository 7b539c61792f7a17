package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func loadCommand(e *engine.Engine) *cobra.Command {
	var (
		input, platform string
		quiet           bool
	)
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			var o image.LoadOptions
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if input != "" {
				file, err := os.Open(input)
				if err != nil {
					return err
				}
				defer file.Close()
				in, o.Source = file, input
			} else if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
				return errors.New("requested load from stdin, but stdin is a terminal: use -i FILE")
			}
			show := newTransfer(cmd.OutOrStdout())
			defer show.close()
			if !quiet {
				o.Progress = show.sink()
			}
			loaded, err := images.Load(cmd.Context(), in, o)
			show.close()
			for _, l := range loaded {
				if l.Name != "" {
					fmt.Fprintln(cmd.OutOrStdout(), "Loaded image:", l.Name)
				} else {
					fmt.Fprintln(cmd.OutOrStdout(), "Loaded image ID:", l.ID)
				}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	flags.StringVar(&platform, "platform", "", "Load only the given platform")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cmd
}
