package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func logsCommand(e *engine.Engine) *cobra.Command {
	var o container.LogOptions
	var tail, since, until string
	var details bool
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			// As in Docker, what is no number means everything.
			if o.Tail, err = strconv.Atoi(tail); err != nil || o.Tail < 0 {
				o.Tail = -1
			}
			if o.Since, err = pointInTime(since, time.Now()); err != nil {
				return err
			}
			if o.Until, err = pointInTime(until, time.Now()); err != nil {
				return err
			}
			return containers.Logs(cmd.Context(), args[0], o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	flags.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	flags.StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	flags.StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	flags.StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	flags.BoolVar(&details, "details", false, "Show extra details provided to logs (there are none)")
	return cmd
}

// pointInTime reads what Docker takes for --since: a duration before now, a
// date in one of several forms, or seconds since 1970. Empty is the zero time.
func pointInTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(f*1e9)), nil
	}
	return time.Time{}, invalid("invalid value for a time: %q", s)
}
