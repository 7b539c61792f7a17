package cli

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
)

// cacheRow has the placeholders of `docker buildx du --format`.
type cacheRow struct {
	ID, Type, Description, Size, CreatedAt, LastUsedAt, CreatedSince, LastUsedSince string
	Reclaimable, Shared                                                             string
}

var cacheHeaders = map[string]string{
	"ID": "ID", "Type": "TYPE", "Description": "DESCRIPTION", "Size": "SIZE", "CreatedAt": "CREATED AT", "LastUsedAt": "LAST USED AT",
	"CreatedSince": "CREATED", "LastUsedSince": "LAST ACCESSED", "Reclaimable": "RECLAIMABLE", "Shared": "SHARED",
}

func builderDUCommand(e *engine.Engine) *cobra.Command {
	var (
		spec    string
		verbose bool
		filters []string
	)
	cmd := &cobra.Command{
		Use:   "du [OPTIONS]",
		Short: "Show what the build cache keeps",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verbose && spec != "" {
				return &usageError{"shale: --format and --verbose cannot be used together"}
			}
			unused, err := unusedFilter(filters)
			if err != nil {
				return err
			}
			shown, err := format.Parse(spec, "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedSince}}", cacheHeaders)
			if err != nil {
				return err
			}
			b, err := e.Builder()
			if err != nil {
				return err
			}
			entries, err := b.Usage(cmd.Context())
			if err != nil {
				return err
			}
			now := time.Now()
			var rows []cacheRow
			var totals cacheTotals
			for _, entry := range entries {
				if unused > 0 && now.Sub(entry.Used) < unused {
					continue
				}
				totals.add(entry)
				row := newCacheRow(entry, now)
				if spec == "" && !verbose {
					row.ID = row.ID[:min(25, len(row.ID))]
				}
				rows = append(rows, row)
			}
			if verbose {
				err = writeCacheRows(cmd.OutOrStdout(), rows)
			} else {
				err = format.Write(cmd.OutOrStdout(), shown, rows)
			}
			if err == nil && spec == "" {
				err = totals.write(cmd.OutOrStdout())
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g., "until=24h")`)
	flags.StringVar(&spec, "format", "", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.BoolVar(&verbose, "verbose", false, "Provide a more verbose output")
	return wantsNamespace(cmd)
}

func newCacheRow(e build.CacheEntry, now time.Time) cacheRow {
	return cacheRow{
		ID: e.ID, Type: e.Kind, Description: e.Description, Size: units.HumanSize(float64(e.Size)),
		CreatedAt: createdAt(e.Created), LastUsedAt: createdAt(e.Used), CreatedSince: ago(e.Created, now), LastUsedSince: ago(e.Used, now),
		Reclaimable: strconv.FormatBool(!e.Shared), Shared: strconv.FormatBool(e.Shared),
	}
}

// writeCacheRows prints each entry as a paragraph.
func writeCacheRows(w io.Writer, rows []cacheRow) error {
	out := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(out, "ID:\t%s\nCreated at:\t%s\nReclaimable:\t%s\nShared:\t%s\nSize:\t%s\nDescription:\t%s\nLast used:\t%s\nType:\t%s\n\n",
			r.ID, r.CreatedAt, r.Reclaimable, r.Shared, r.Size, r.Description, r.LastUsedSince, r.Type)
	}
	return out.Flush()
}

type cacheTotals struct{ shared, private int64 }

func (t *cacheTotals) add(e build.CacheEntry) {
	if e.Shared {
		t.shared += e.Size
		return
	}
	t.private += e.Size
}

// write prints the totals. What images have, too, is not reclaimable.
func (t *cacheTotals) write(w io.Writer) error {
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	_, err := fmt.Fprintf(w, "Shared:\t\t%s\nPrivate:\t%s\nReclaimable:\t%s\nTotal:\t\t%s\n",
		size(t.shared), size(t.private), size(t.private), size(t.shared+t.private))
	return err
}
