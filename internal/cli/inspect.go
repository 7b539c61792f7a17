package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
)

// inspectors look things up for `shale inspect`, in the order in which names
// are tried. What is not there is an [errdefs.ErrNotFound].
func inspectors(e *engine.Engine, size bool) []inspector {
	return []inspector{
		{"container", func(ctx context.Context, name string) (any, error) { return inspectContainer(ctx, e, name, size) }},
		{"image", func(ctx context.Context, name string) (any, error) { return inspectImage(ctx, e, name, "") }},
		{"volume", func(_ context.Context, name string) (any, error) { return inspectVolume(e, name) }},
	}
}

type inspector struct {
	kind string
	get  func(ctx context.Context, name string) (any, error)
}

func inspectCommand(e *engine.Engine) *cobra.Command {
	var spec, kind string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on objects",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			known := kind == ""
			var use []inspector
			for _, i := range inspectors(e, size) {
				if kind == "" || kind == i.kind {
					use, known = append(use, i), true
				}
			}
			if !known {
				return fmt.Errorf("unknown type: %q", kind)
			}
			return printInspected(cmd.OutOrStdout(), spec, args, func(name string) (any, error) {
				for _, i := range use {
					value, err := i.get(cmd.Context(), name)
					if !errdefs.IsNotFound(err) && !(len(use) > 1 && errdefs.IsInvalidArgument(err)) {
						return value, err
					}
				}
				return nil, errdefs.ErrNotFound.WithMessage("no such object: " + name)
			})
		},
		ValidArgsFunction: completeImages(e, -1),
	}
	flags := cmd.Flags()
	flags.StringVarP(&spec, "format", "f", "", "Format output: 'json' or a Go template")
	flags.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	flags.StringVar(&kind, "type", "", "Only inspect objects of the given type")
	return cmd
}

func imageInspectCommand(e *engine.Engine) *cobra.Command {
	var spec, platform string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short: "Display detailed information on one or more images",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printInspected(cmd.OutOrStdout(), spec, args, func(name string) (any, error) {
				return inspectImage(cmd.Context(), e, name, platform)
			})
		},
		ValidArgsFunction: completeImages(e, -1),
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output: 'json' or a Go template")
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect a specific platform of the multi-platform image")
	return cmd
}

func inspectImage(ctx context.Context, e *engine.Engine, name, platform string) (any, error) {
	images, err := e.Images()
	if err != nil {
		return nil, err
	}
	p, err := platformFlag(platform)
	if err != nil {
		return nil, err
	}
	info, err := images.Inspect(ctx, name, p)
	if err != nil {
		return nil, err
	}
	if d, _, err := e.Rootfs(); err == nil {
		info.GraphDriver.Name = d.Name()
	}
	return info, nil
}

// printInspected prints what get finds for each argument: one JSON array, or
// the template for each. What is not found is an error after the rest.
func printInspected(w io.Writer, spec string, args []string, get func(name string) (any, error)) error {
	values := []any{}
	missing := forEach(args, func(name string) error {
		value, err := get(name)
		if err == nil {
			values = append(values, value)
		}
		return err
	})
	if spec != "" && spec != "json" {
		for _, v := range values {
			if err := format.Object(w, spec, v); err != nil {
				return err
			}
		}
		return missing
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	if spec == "" {
		out.SetIndent("", "    ")
	}
	if err := out.Encode(values); err != nil {
		return err
	}
	return missing
}
