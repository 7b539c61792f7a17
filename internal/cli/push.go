package cli

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
)

func pushCommand(e *engine.Engine) *cobra.Command {
	var (
		all, quiet            bool
		platform, compression string
		level                 int
	)
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			show := newTransfer(out)
			defer show.close()
			o := image.PushOptions{Progress: show.sink(), Level: level}
			if quiet {
				o.Progress = nil
			}
			if o.Compression, err = compressionFlag(compression); err != nil {
				return err
			}
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			if all {
				_, err = images.PushAll(cmd.Context(), args[0], o)
			} else {
				if named, err := reference.ParseNormalizedNamed(args[0]); err == nil && reference.IsNameOnly(named) {
					o.Progress.Emit(progress.Event{Message: "Using default tag: latest"})
				}
				_, err = images.Push(cmd.Context(), args[0], o)
			}
			if err == nil && quiet {
				named, _ := image.ParseName(args[0])
				show.close()
				fmt.Fprintln(out, named.String())
			}
			return err
		},
		ValidArgsFunction: completeImages(e, 1),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	flags.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	flags.StringVar(&compression, "compression", "gzip", `Compression of layers that have none yet ("gzip", "zstd")`)
	flags.IntVar(&level, "compression-level", 0, "Level of the compression (0: its default)")
	noContentTrust(cmd)
	return cmd
}

func compressionFlag(s string) (layer.Compression, error) {
	switch strings.ToLower(s) {
	case "", "gzip":
		return layer.Gzip, nil
	case "zstd":
		return layer.Zstd, nil
	}
	return layer.None, fmt.Errorf("invalid compression %q: want gzip or zstd", s)
}
