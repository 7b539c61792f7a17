package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func saveCommand(e *engine.Engine) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			var o image.SaveOptions
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			return toFile(cmd.OutOrStdout(), output, func(w io.Writer) error {
				return images.Save(cmd.Context(), w, args, o)
			})
		},
		ValidArgsFunction: completeImages(e, -1),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", "Save only the given platform")
	return cmd
}

// toFile gives f the file at path, or out if that is empty, to write an
// archive to. A file appears under its name only when it is complete.
func toFile(out io.Writer, path string, f func(io.Writer) error) error {
	if path == "" {
		if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return f(out)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("write %s: is a directory", path)
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(f(file), file.Close())
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		var perr *fs.PathError
		if errors.As(err, &perr) {
			perr.Path = path // as the user knows it
		}
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(f(file), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
