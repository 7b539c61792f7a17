package cli

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/progress"
)

func pullCommand(e *engine.Engine) *cobra.Command {
	var (
		all, quiet bool
		platforms  []string
	)
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			named, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				_, err = image.ParseName(args[0])
				return err
			}
			out := cmd.OutOrStdout()
			show := newTransfer(out)
			defer show.close()
			o := image.PullOptions{Progress: show.sink()}
			if quiet {
				o.Progress = nil
			}
			if all {
				if _, err := images.PullAll(cmd.Context(), args[0], o); err != nil {
					return err
				}
				show.close()
				fmt.Fprintln(out, named.Name())
				return nil
			}
			if reference.IsNameOnly(named) {
				named = reference.TagNameOnly(named)
				o.Progress.Emit(progress.Event{Message: "Using default tag: " + named.(reference.Tagged).Tag()})
			}
			for _, p := range orDefault(platforms) {
				if o.Platform, err = platformFlag(p); err != nil {
					return err
				}
				if _, err := images.Pull(cmd.Context(), args[0], o); err != nil {
					return err
				}
			}
			show.close()
			fmt.Fprintln(out, named.String())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	flags.StringSliceVar(&platforms, "platform", nil, "Set platform if server is multi-platform capable")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	noContentTrust(cmd)
	return cmd
}

// orDefault stands for the default platform, "", if none is given.
func orDefault(platforms []string) []string {
	if len(platforms) == 0 {
		return []string{""}
	}
	return platforms
}

// noContentTrust takes the flag of scripts that switch off what shale doesn't
// have.
func noContentTrust(cmd *cobra.Command) {
	cmd.Flags().Bool("disable-content-trust", true, "Skip image verification (deprecated)")
	_ = cmd.Flags().MarkHidden("disable-content-trust")
}
