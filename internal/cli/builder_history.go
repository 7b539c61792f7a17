package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/build/history"
	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
)

// builderHistoryCommand is `docker buildx history`; alone it lists.
func builderHistoryCommand(e *engine.Engine) *cobra.Command {
	list := historyListCommand(e)
	cmd := &cobra.Command{
		Use:   "history COMMAND",
		Short: "Show what builds there were",
		Args:  unknownCommand,
		RunE:  list.RunE,
	}
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, historyInspectCommand(e), builderLogsCommand(e), historyRmCommand(e))
	return cmd
}

// builderLogsCommand is both `builder logs` and `builder history logs`.
func builderLogsCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "logs [BUILD]",
		Short: "Print the whole log of a build, the latest unless its id is given",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := findBuild(e, args)
			if err != nil {
				return err
			}
			return r.WriteLog(cmd.OutOrStdout())
		},
	}
}

func findBuild(e *engine.Engine, args []string) (history.Record, error) {
	s, err := e.Store()
	if err != nil {
		return history.Record{}, err
	}
	if len(args) == 0 {
		return history.Latest(s)
	}
	return history.Find(s, args[0])
}

// buildRow has the placeholders of `docker buildx history ls --format`.
type buildRow struct {
	Ref, Name, Status, CreatedAt, Duration string

	record history.Record
}

var buildHeaders = map[string]string{
	"Ref": "BUILD ID", "Name": "NAME", "Status": "STATUS", "CreatedAt": "CREATED AT", "Duration": "DURATION",
}

// MarshalJSON has the names of buildx, and what shale adds.
func (r buildRow) MarshalJSON() ([]byte, error) {
	b := r.record
	doc := map[string]any{
		"ref": b.ID, "name": r.Name, "status": r.Status, "created_at": b.Started.Format(time.RFC3339Nano),
		"total_steps": b.Steps, "cached_steps": b.Cached, "context": b.Context, "log_bytes": b.Log,
	}
	if !b.Ended.IsZero() {
		doc["completed_at"] = b.Ended.Format(time.RFC3339Nano)
	}
	for key, value := range map[string]string{"dockerfile": b.Dockerfile, "target": b.Target, "error": b.Error} {
		if value != "" {
			doc[key] = value
		}
	}
	if len(b.Names) > 0 {
		doc["tags"] = b.Names
	}
	return json.Marshal(doc)
}

func newBuildRow(r history.Record, now time.Time) buildRow {
	name := filepath.Base(r.Context)
	if r.Target != "" {
		name += " (" + r.Target + ")"
	}
	return buildRow{
		Ref: r.ID, Name: name, Status: string(r.Status), CreatedAt: ago(r.Started, now), Duration: durationOf(r, now), record: r,
	}
}

// durationOf is how long a build took, or takes, as buildx writes it.
func durationOf(r history.Record, now time.Time) string {
	d := r.Duration()
	switch {
	case r.Status == history.Running:
		return now.Sub(r.Started).Round(time.Second).String() + "+"
	case r.Ended.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
}

func historyListCommand(e *engine.Engine) *cobra.Command {
	var spec string
	var noTrunc bool
	cmd := &cobra.Command{
		Use:   "ls [OPTIONS]",
		Short: "List builds, the latest first",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := format.Parse(spec, "{{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Duration}}", buildHeaders)
			if err != nil {
				return err
			}
			s, err := e.Store()
			if err != nil {
				return err
			}
			builds, err := history.List(s)
			if err != nil {
				return err
			}
			now := time.Now()
			var rows []buildRow
			for _, b := range builds {
				row := newBuildRow(b, now)
				if shown.IsTable() && !noTrunc {
					row.Name = shorten(row.Name, 36)
				}
				rows = append(rows, row)
			}
			return format.Write(cmd.OutOrStdout(), shown, rows)
		},
	}
	cmd.Flags().StringVar(&spec, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func historyInspectCommand(e *engine.Engine) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [BUILD]",
		Short: "Show what is known of a build, the latest unless its id is given",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := findBuild(e, args)
			if err != nil {
				return err
			}
			row := newBuildRow(r, time.Now())
			if spec == "" || spec == "pretty" {
				if row.record.Kept, err = isKept(cmd.Context(), e, r); err != nil {
					return err
				}
				return writeBuild(cmd.OutOrStdout(), row)
			}
			shown, err := format.Parse(spec, "", buildHeaders)
			if err != nil {
				return err
			}
			return format.Write(cmd.OutOrStdout(), shown, []buildRow{row})
		},
	}
	cmd.Flags().StringVar(&spec, "format", "", `Format output: "pretty", "json" or a Go template`)
	return cmd
}

// isKept tells whether the step that failed in r is kept still.
func isKept(ctx context.Context, e *engine.Engine, r history.Record) (bool, error) {
	if !r.Kept {
		return false, nil
	}
	b, err := e.Builder()
	if err != nil {
		return false, err
	}
	failures, err := b.Failures(ctx)
	return slices.ContainsFunc(failures, func(f build.Failure) bool { return f.ID == r.ID }), err
}

// writeBuild prints a build line by line, as buildx does.
func writeBuild(w io.Writer, row buildRow) error {
	b := row.record
	out := tabwriter.NewWriter(w, 0, 0, 4, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%s:\t%s\n", name, value)
		}
	}
	line("Name", row.Name)
	line("Context", b.Context)
	line("Dockerfile", b.Dockerfile)
	line("Target", b.Target)
	for _, name := range b.Names {
		line("Tag", name)
	}
	line("Started", b.Started.Local().Format(time.DateTime))
	line("Duration", row.Duration)
	line("Status", row.Status)
	if !b.Ended.IsZero() {
		line("Build Steps", fmt.Sprintf("%d (%d%% cached)", b.Steps, 100*b.Cached/max(b.Steps, 1)))
	}
	line("Error", b.Error)
	if b.Kept {
		line("Debug", "shale debug "+b.ID)
	}
	line("Log", units.HumanSize(float64(b.Log))+", shale builder logs "+b.ID)
	return out.Flush()
}

func historyRmCommand(e *engine.Engine) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] [BUILD...]",
		Short: "Forget builds and their logs",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return &usageError{"shale: name builds, or give --all"}
			}
			s, err := e.Store()
			if err != nil {
				return err
			}
			builds := []history.Record{}
			for _, id := range args {
				b, err := history.Find(s, id)
				if err != nil {
					return err
				}
				builds = append(builds, b)
			}
			if all {
				if builds, err = history.List(s); err != nil {
					return err
				}
			}
			var errs []error
			for _, b := range builds {
				if all && b.Status == history.Running {
					continue
				}
				errs = append(errs, b.Remove())
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "Forget all builds")
	return cmd
}
