package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
)

const psTable = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

var psHeaders = map[string]string{
	"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
	"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
	"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
}

// psRow has the placeholders of `docker ps --format`.
type psRow struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label returns the value of a label.
func (r psRow) Label(name string) string { return r.labels[name] }

func psCommand(e *engine.Engine) *cobra.Command {
	var o container.ListOptions
	var filters []string
	var quiet, latest, noTrunc bool
	var spec string
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Filters, err = image.ParseFilters(filters); err != nil {
				return err
			}
			if latest {
				o.Last = 1
			}
			table := psTable
			if o.Size {
				table += "\t{{.Size}}"
			}
			if quiet {
				spec = "{{.ID}}"
			}
			f, err := format.Parse(spec, table, psHeaders)
			if err != nil {
				return err
			}
			o.Size = o.Size || strings.Contains(spec, ".Size")
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			list, err := containers.List(cmd.Context(), o)
			if err != nil {
				return err
			}
			rows := make([]psRow, 0, len(list))
			for _, s := range list {
				rows = append(rows, newPsRow(s, time.Now(), noTrunc))
			}
			return format.Write(cmd.OutOrStdout(), f, rows)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.All, "all", "a", false, "Show all containers (default shows just running)")
	listVarP(flags, &filters, "filter", "f", "Filter output based on conditions provided")
	flags.StringVar(&spec, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.IntVarP(&o.Last, "last", "n", 0, "Show n last created containers (includes all states)")
	flags.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	flags.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	flags.BoolVarP(&o.Size, "size", "s", false, "Display total file sizes")
	return cmd
}

func newPsRow(s container.Summary, now time.Time, noTrunc bool) psRow {
	row := psRow{
		ID: s.ID, Image: s.Image, Names: s.Name, State: string(s.Status), Networks: s.Network,
		Command:    strconv.Quote(commandText(s.Command)),
		CreatedAt:  s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: units.HumanDuration(now.Sub(s.Created)) + " ago",
		Status:     statusText(s, now),
		Ports:      portsText(s.Ports, s.Exposed),
		Size:       units.HumanSizeWithPrecision(float64(s.Size), 3),
		Mounts:     strings.Join(s.Mounts, ","),
		labels:     s.Labels,
	}
	if s.Virtual > 0 {
		row.Size += fmt.Sprintf(" (virtual %s)", units.HumanSizeWithPrecision(float64(s.Virtual), 3))
	}
	var labels []string
	for k, v := range s.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	row.Labels = strings.Join(labels, ",")
	row.LocalVolumes = fmt.Sprint(len(s.Mounts))
	if !noTrunc {
		row.ID = s.ID[:12]
		row.Command = strconv.Quote(ellipsis(commandText(s.Command), 20))
	}
	return row
}

// commandText joins a command line as Docker does: arguments with spaces in
// single quotes, whatever else is in them.
func commandText(args []string) string {
	words := slices.Clone(args)
	for i, w := range words {
		if i > 0 && strings.Contains(w, " ") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

// ellipsis cuts s to n characters, the last of them then being "…".
func ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// statusText is Docker's STATUS column.
func statusText(s container.Summary, now time.Time) string {
	switch s.Status {
	case container.Running:
		return "Up " + units.HumanDuration(now.Sub(s.State.StartedAt))
	case container.Paused:
		return "Up " + units.HumanDuration(now.Sub(s.State.StartedAt)) + " (Paused)"
	case container.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.State.ExitCode, units.HumanDuration(now.Sub(s.State.FinishedAt)))
	case container.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.State.ExitCode, units.HumanDuration(now.Sub(s.State.FinishedAt)))
	}
	return "Created"
}

// portsText is Docker's PORTS column.
func portsText(published []network.Port, exposed []string) string {
	var all []string
	shown := map[string]bool{}
	for _, p := range published {
		inner := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
		shown[inner] = true
		if p.HostIP.IsValid() {
			host := p.HostIP.String()
			if p.HostIP.Is6() {
				host = "[" + host + "]"
			}
			all = append(all, fmt.Sprintf("%s:%d->%s", host, p.HostPort, inner))
			continue
		}
		all = append(all, fmt.Sprintf("0.0.0.0:%d->%s", p.HostPort, inner), fmt.Sprintf("[::]:%d->%s", p.HostPort, inner))
	}
	for _, e := range exposed {
		if !shown[e] && len(published) > 0 {
			all = append(all, e)
		}
	}
	return strings.Join(all, ", ")
}
