package cli

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/store"
)

// usageRow has the placeholders of `docker system df --format`.
type usageRow struct{ Type, TotalCount, Active, Size, Reclaimable string }

var usageHeaders = map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}

func systemDFCommand(e *engine.Engine) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show disk usage",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := format.Parse(spec, "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}", usageHeaders)
			if err != nil {
				return err
			}
			usage, err := e.DiskUsage(cmd.Context())
			if err != nil {
				return err
			}
			return format.Write(cmd.OutOrStdout(), shown, usageRows(usage))
		},
	}
	cmd.Flags().StringVar(&spec, "format", "", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
	return cmd
}

// usageRows are Docker's four, and those of ours that have something in them.
func usageRows(u store.Usage) []usageRow {
	rows := []usageRow{
		newUsageRow("Images", u.Images),
		newUsageRow("Containers", u.Containers),
		newUsageRow("Local Volumes", u.Volumes),
		newUsageRow("Build Cache", u.Cache),
	}
	if u.Registry.Total > 0 {
		rows = append(rows, newUsageRow("Served", u.Registry))
	}
	if u.InFlight+u.Garbage > 0 {
		rows = append(rows, newUsageRow("Other", store.Share{Size: u.InFlight + u.Garbage, Reclaimable: u.Garbage}))
	}
	return rows
}

func newUsageRow(name string, s store.Share) usageRow {
	reclaimable := units.HumanSize(float64(s.Reclaimable))
	if s.Size > 0 {
		reclaimable += fmt.Sprintf(" (%d%%)", s.Reclaimable*100/s.Size)
	}
	return usageRow{name, strconv.Itoa(s.Total), strconv.Itoa(s.Active), units.HumanSize(float64(s.Size)), reclaimable}
}
