package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

// historyRow has the placeholders of `docker history --format`.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

var historyHeaders = map[string]string{
	"Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED", "ID": "IMAGE", "Size": "SIZE",
}

type historyFlags struct {
	format, platform      string
	human, noTrunc, quiet bool
}

func historyCommand(e *engine.Engine) *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show the history of an image",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			platform, err := platformFlag(f.platform)
			if err != nil {
				return err
			}
			entries, err := images.History(cmd.Context(), args[0], platform)
			if err != nil {
				return err
			}
			spec := f.format
			if f.quiet && spec == "" {
				spec = "{{.ID}}"
			}
			shown, err := format.Parse(spec, f.columns(), historyHeaders)
			if err != nil {
				return err
			}
			rows := make([]historyRow, 0, len(entries))
			for _, entry := range entries {
				rows = append(rows, f.row(entry, time.Now()))
			}
			return format.Write(cmd.OutOrStdout(), shown, rows)
		},
		ValidArgsFunction: completeImages(e, 1),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.BoolVarP(&f.human, "human", "H", true, "Print sizes and dates in human readable format")
	flags.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	flags.StringVar(&f.platform, "platform", "", "Show history for the given platform")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	return cmd
}

func (f *historyFlags) columns() string {
	switch {
	case f.quiet:
		return "{{.ID}}"
	case f.human:
		return "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
}

func (f *historyFlags) row(e image.HistoryEntry, now time.Time) historyRow {
	row := historyRow{
		Comment:      e.Comment,
		CreatedAt:    "N/A",
		CreatedBy:    strings.ReplaceAll(e.CreatedBy, "\t", " "),
		CreatedSince: ago(e.Created, now),
		ID:           e.ID,
		Size:         strconv.FormatInt(e.Size, 10),
	}
	if !e.Created.IsZero() {
		row.CreatedAt = e.Created.Local().Format(time.RFC3339)
	}
	if f.human {
		row.Size = units.HumanSizeWithPrecision(float64(e.Size), 3)
	}
	if !f.noTrunc {
		row.CreatedBy = ellipsis(row.CreatedBy, 45)
		if d := digest.Digest(e.ID); d.Validate() == nil {
			row.ID = imageID(d, false)
		}
	}
	return row
}
