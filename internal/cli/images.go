package cli

import (
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

// imageRow has the placeholders of `docker images --format`.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string `json:"-"`
}

var imageHeaders = map[string]string{
	"Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST",
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG",
	"UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
}

type imagesFlags struct {
	all, digests, noTrunc, quiet, tree bool
	filters                            []string
	format                             string
}

// imagesCommand is `shale images` and, as use says, `shale image ls`.
func imagesCommand(e *engine.Engine, use string, aliases ...string) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:     use + " [OPTIONS] [REPOSITORY[:TAG]]",
		Aliases: aliases,
		Short:   "List images",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			filters := f.filters
			for _, pattern := range args {
				filters = append(filters, "reference="+pattern)
			}
			return listImages(cmd, e, f, filters)
		},
		ValidArgsFunction: completeImages(e, 1),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all", "a", false, "Show all images (there are no intermediate ones to hide)")
	flags.BoolVar(&f.digests, "digests", false, "Show digests")
	flags.StringArrayVarP(&f.filters, "filter", "f", nil, "Filter output based on conditions provided")
	flags.StringVar(&f.format, "format", "", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	flags.BoolVar(&f.tree, "tree", false, "List the platforms of each image")
	return cmd
}

func listImages(cmd *cobra.Command, e *engine.Engine, f imagesFlags, args []string) error {
	filters, err := image.ParseFilters(args)
	if err != nil {
		return err
	}
	images, err := e.Images()
	if err != nil {
		return err
	}
	if f.tree {
		return treeImages(cmd, images, filters, f)
	}
	shown, err := format.Parse(f.spec(), f.columns(), imageHeaders)
	if err != nil {
		return err
	}
	list, err := images.List(cmd.Context(), image.ListOptions{Filters: filters})
	if err != nil {
		return err
	}
	var rows []imageRow
	now := time.Now()
	for n := range list {
		for _, row := range list[n].Rows(f.digests) {
			rows = append(rows, newImageRow(row, f.noTrunc, now))
		}
	}
	return format.Write(cmd.OutOrStdout(), shown, rows)
}

func (f *imagesFlags) spec() string {
	if f.quiet && f.format == "" {
		return "{{.ID}}"
	}
	return f.format
}

func (f *imagesFlags) columns() string {
	if f.quiet {
		return "{{.ID}}"
	}
	if f.digests {
		return "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
}

func newImageRow(row image.Row, noTrunc bool, now time.Time) imageRow {
	size := units.HumanSizeWithPrecision(float64(row.Size), 3)
	return imageRow{
		Containers:   "N/A",
		CreatedAt:    createdAt(row.Created),
		CreatedSince: ago(row.Created, now),
		Digest:       row.Digest.String(),
		ID:           imageID(row.ID, noTrunc),
		Repository:   row.Repository,
		SharedSize:   "N/A",
		Size:         size,
		Tag:          row.Tag,
		UniqueSize:   "N/A",
		VirtualSize:  size,
	}
}

// imageID is an id as lists show it.
func imageID(id digest.Digest, noTrunc bool) string {
	if noTrunc {
		return id.String()
	}
	return id.Encoded()[:12]
}

func createdAt(t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return t.Local().Truncate(time.Second).String()
}

// ago is a moment in Docker's words: "2 weeks ago".
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// treeImages prints every image with the platforms that are in the store.
func treeImages(cmd *cobra.Command, images *image.Images, filters image.Filters, f imagesFlags) error {
	trees, err := images.Trees(cmd.Context(), image.ListOptions{Filters: filters})
	if err != nil {
		return err
	}
	type line struct{ Image, ID, Size string }
	shown, err := format.Parse("", "{{.Image}}\t{{.ID}}\t{{.Size}}", map[string]string{"Image": "IMAGE", "ID": "ID", "Size": "DISK USAGE"})
	if err != nil {
		return err
	}
	var rows []line
	for _, t := range trees {
		rows = append(rows, line{t.Name, imageID(t.Target.Digest, f.noTrunc), units.HumanSizeWithPrecision(float64(t.Size), 3)})
		for n, p := range t.Platforms {
			branch := "├─ "
			if n == len(t.Platforms)-1 {
				branch = "└─ "
			}
			rows = append(rows, line{branch + p.Platform, imageID(p.ID, f.noTrunc), units.HumanSizeWithPrecision(float64(p.Size), 3)})
		}
	}
	return format.Write(cmd.OutOrStdout(), shown, rows)
}

// completeImages offers the names of images for the first most arguments;
// most < 0 is for all of them.
func completeImages(e *engine.Engine, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		images, err := e.Images()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := images.List(cmd.Context(), image.ListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, s := range list {
			names = append(names, s.RepoTags...)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
