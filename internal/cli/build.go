package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/store"
)

func buildCommand(e *engine.Engine) *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:     "build [OPTIONS] PATH | URL | -",
		Aliases: []string{"b"},
		Short:   "Build an image from a Dockerfile",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBuild(cmd, e, &f, args[0])
		},
	}
	f.add(cmd.Flags())
	return wantsNamespace(cmd)
}

func runBuild(cmd *cobra.Command, e *engine.Engine, f *buildFlags, path string) error {
	req, err := f.request(path, cmd.InOrStdin())
	if err != nil {
		return err
	}
	for _, w := range f.warnings(cmd.Flags()) {
		fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", w)
	}
	file, err := f.openOutput(cmd.OutOrStdout(), &req)
	if err != nil {
		return err
	}
	b, err := e.Builder()
	if err != nil {
		return err
	}
	res, err := buildAndShow(cmd.Context(), b, req, f, cmd.ErrOrStderr())
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return err
	}
	if res.Answer != nil {
		return f.asked.print(cmd.OutOrStdout(), res.Answer)
	}
	if f.push {
		if err := pushBuilt(cmd, b.Images, req.Output.Names); err != nil {
			return err
		}
	}
	return f.report(cmd.OutOrStdout(), res, req)
}

// buildAndShow builds and shows the progress on w. An error is followed by
// the lines of the Dockerfile that it is about.
func buildAndShow(ctx context.Context, b *build.Builder, req build.Request, f *buildFlags, w io.Writer) (build.Result, error) {
	mode := progressui.DisplayMode(f.progress)
	if f.quiet || req.Language.Call != "" && mode == progressui.AutoMode {
		mode = progressui.QuietMode
	}
	display, err := progressui.NewDisplay(w, mode)
	if err != nil {
		return build.Result{}, &usageError{fmt.Sprintf("invalid progress mode %q: %v", f.progress, err)}
	}
	status := make(chan *bkclient.SolveStatus, 64)
	shown := make(chan []bkclient.VertexWarning, 1)
	go func() {
		// The display goes on when the build is interrupted: it ends when
		// the channel is closed.
		warnings, _ := display.UpdateFrom(context.WithoutCancel(ctx), status)
		shown <- warnings
	}()
	res, err := b.Build(ctx, req, status)
	warnings := <-shown
	f.printVerdicts(w, res.Steps)
	if err != nil {
		if xerr := build.Excerpt(w, err); xerr != nil {
			return res, xerr
		}
		return res, err
	}
	if mode != progressui.QuietMode && mode != progressui.RawJSONMode {
		printBuildWarnings(w, warnings)
	}
	return res, nil
}

// printBuildWarnings lists the build checks that found something.
func printBuildWarnings(w io.Writer, warnings []bkclient.VertexWarning) {
	if len(warnings) == 0 {
		return
	}
	noun := "warnings"
	if len(warnings) == 1 {
		noun = "warning"
	}
	fmt.Fprintf(w, "\n %d %s found:\n", len(warnings), noun)
	for _, warning := range warnings {
		fmt.Fprintf(w, " - %s\n", warning.Short)
	}
}

// pushBuilt sends what was built under each of its names.
func pushBuilt(cmd *cobra.Command, images *image.Images, names []string) error {
	for _, name := range names {
		desc, err := images.Push(cmd.Context(), name, image.PushOptions{})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "pushed %s@%s\n", name, desc.Digest)
	}
	return nil
}

// report writes what is asked for about the result: ids, metadata, findings.
func (f *buildFlags) report(out io.Writer, res build.Result, req build.Request) error {
	if f.iidfile != "" && res.ID() != "" {
		if err := os.WriteFile(f.iidfile, []byte(res.ID()), 0o644); err != nil {
			return fmt.Errorf("write image id: %w", err)
		}
	}
	if f.metadataFile != "" {
		if err := writeMetadata(f.metadataFile, res, req); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	if f.quiet && res.ID() != "" && f.dest != "-" {
		fmt.Fprintln(out, res.ID())
	}
	return nil
}

// writeMetadata writes what buildx writes about an image.
func writeMetadata(file string, res build.Result, req build.Request) error {
	metadata := map[string]any{}
	if img := res.Image; img != nil {
		metadata["containerimage.config.digest"] = img.ConfigDigest
		metadata["containerimage.descriptor"] = img.Target
		metadata["containerimage.digest"] = img.Target.Digest
		var names []string
		for _, name := range req.Output.Names {
			named, err := image.ParseName(name)
			if err != nil {
				return err
			}
			names = append(names, named.String())
		}
		if len(names) > 0 {
			metadata["image.name"] = strings.Join(names, ",")
		}
	}
	data, err := json.MarshalIndent(metadata, "", "  ")
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(dir, filepath.Base(file)), append(data, '\n'))
}

// openOutput opens the file that -o names and makes it the request's output.
func (f *buildFlags) openOutput(stdout io.Writer, req *build.Request) (io.Closer, error) {
	if f.dest == "" {
		return nil, nil
	}
	to := &req.Output.Tar
	if f.archive {
		to = &req.Output.Archive
	}
	if f.dest == "-" {
		if file, ok := stdout.(*os.File); ok && isTerminal(file) {
			return nil, fmt.Errorf("write output to standard output: it is a terminal: %w", errdefs.ErrInvalidArgument)
		}
		*to = stdout
		return nil, nil
	}
	file, err := os.Create(f.dest)
	if err != nil {
		return nil, err
	}
	*to = file
	return file, nil
}
