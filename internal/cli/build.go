package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/engine"
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
	if len(f.platforms) == 0 && e.Config.Platform != "" {
		f.platforms = []string{e.Config.Platform}
	}
	req, err := f.request(path, cmd.InOrStdin())
	if err != nil {
		return err
	}
	for _, w := range f.warnings(cmd.Flags()) {
		fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", w)
	}
	files, err := f.openOutputs(cmd.OutOrStdout(), &req)
	defer func() {
		for _, file := range files {
			_ = file.finish(false) // after an error: nobody counts on what is in it
		}
	}()
	if err != nil {
		return err
	}
	b, err := e.Builder()
	if err != nil {
		return err
	}
	if err := f.dropID(); err != nil {
		return err
	}
	res, err := buildAndShow(cmd.Context(), b, req, f, cmd.ErrOrStderr())
	for ; len(files) > 0; files = files[1:] {
		err = errors.Join(err, files[0].finish(err == nil && req.Language.Call == ""))
	}
	if err != nil {
		return err
	}
	if req.Language.Call == build.CallListContext {
		return f.printContext(cmd.OutOrStdout(), res.Context)
	}
	if res.Answer != nil {
		return f.asked.print(cmd.OutOrStdout(), res.Answer)
	}
	for _, p := range res.Pushed {
		fmt.Fprintf(cmd.ErrOrStderr(), "pushed %s@%s\n", p.Name, p.Descriptor.Digest)
	}
	f.verified(cmd.ErrOrStderr(), res)
	return f.report(cmd.OutOrStdout(), res)
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
	if f.explain != "" {
		f.printVerdicts(w, res.Steps)
	}
	if f.timeline != "" && res.Timeline != nil {
		err = errors.Join(err, writeTimeline(f.timeline, res.Timeline))
	}
	if err != nil {
		if xerr := build.Excerpt(w, err); xerr != nil {
			return res, xerr
		}
		return res, differs(w, err)
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

// dropID removes the file that is to get the id of the image, so that after a
// build that fails nobody takes an older id for that of this one.
func (f *buildFlags) dropID() error {
	if info, err := os.Lstat(f.iidfile); err != nil || !info.Mode().IsRegular() || f.asked.request != "" {
		return nil
	}
	if err := os.Remove(f.iidfile); err != nil {
		return fmt.Errorf("write image id: %w", err)
	}
	return nil
}

// report writes what is asked for about the result: ids, metadata, findings.
func (f *buildFlags) report(out io.Writer, res build.Result) error {
	if f.iidfile != "" && res.ID() != "" {
		if err := os.WriteFile(f.iidfile, []byte(res.ID()), 0o644); err != nil {
			return fmt.Errorf("write image id: %w", err)
		}
	}
	if f.metadataFile != "" {
		if err := writeMetadata(f.metadataFile, res); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	toStdout := slices.ContainsFunc(f.to, func(o buildOutput) bool { return o.dest == "-" })
	if f.quiet && res.ID() != "" && !toStdout {
		_, err := fmt.Fprintln(out, res.ID())
		return err
	}
	return nil
}

// writeMetadata writes what buildx writes about an image, or about the index
// of several.
func writeMetadata(file string, res build.Result) error {
	metadata := map[string]any{}
	if res.Target.Digest != "" {
		metadata["containerimage.descriptor"] = res.Target
		metadata["containerimage.digest"] = res.Target.Digest
		if res.Config != "" {
			metadata["containerimage.config.digest"] = res.Config
		}
		if len(res.Names) > 0 {
			metadata["image.name"] = strings.Join(res.Names, ",")
		}
	}
	data, err := json.MarshalIndent(metadata, "", "  ")
	if err != nil {
		return err
	}
	return writeOut(file, append(data, '\n'))
}

// openOutputs makes the outputs those of the request and opens the files that
// they go to. The caller finishes them, also after an error.
func (f *buildFlags) openOutputs(stdout io.Writer, req *build.Request) (files []*outFile, err error) {
	for _, o := range f.to {
		switch {
		case o.Kind == build.OutputLocal || !o.tar:
			o.Dir = o.dest
		case o.dest == "-":
			if file, ok := stdout.(*os.File); ok && isTerminal(file) {
				return files, fmt.Errorf("write output to standard output: it is a terminal: %w", errdefs.ErrInvalidArgument)
			}
			o.To = stdout
		case o.dest != "":
			file, err := openOut(o.dest, 0o666)
			if err != nil {
				return files, err
			}
			files = append(files, file)
			o.To = file
		}
		req.Outputs = append(req.Outputs, o.Output)
	}
	return files, nil
}
