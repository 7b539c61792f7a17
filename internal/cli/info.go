package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
)

func infoCommand(e *engine.Engine) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := e.Info(cmd.Context(), Version)
			if err != nil {
				return err
			}
			if spec != "" {
				return format.One(cmd.OutOrStdout(), spec, info)
			}
			for _, w := range info.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", w)
			}
			return printInfo(cmd.OutOrStdout(), info)
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a Go template, or 'json'")
	return wantsNamespace(cmd) // which driver works is seen only where it would mount
}

func printInfo(w io.Writer, info engine.Info) error {
	tabs := tabwriter.NewWriter(w, 0, 1, 1, ' ', 0)
	line := func(indent, name string, value any) { fmt.Fprintf(tabs, "%s%s:\t%v\n", indent, name, value) }
	line("", "Containers", info.Containers)
	line(" ", "Running", info.ContainersRunning)
	line(" ", "Paused", info.ContainersPaused)
	line(" ", "Stopped", info.ContainersStopped)
	line("", "Images", info.Images)
	line("", "Server Version", info.ServerVersion)
	line("", "Storage Driver", info.Driver)
	for _, status := range info.DriverStatus {
		line(" ", status[0], status[1])
	}
	line("", "Default Network", info.Network)
	for _, status := range info.NetworkStatus {
		line(" ", status[0], status[1])
	}
	line("", "Cgroup Driver", info.CgroupDriver)
	line("", "Cgroup Version", info.CgroupVersion)
	line("", "Default Runtime", info.DefaultRuntime)
	for _, option := range info.SecurityOptions {
		line("", "Security Option", option)
	}
	line("", "Kernel Version", info.KernelVersion)
	line("", "Operating System", info.OperatingSystem)
	line("", "OSType", info.OSType)
	line("", "Architecture", info.Architecture)
	line("", "CPUs", info.NCPU)
	line("", "Total Memory", units.BytesSize(float64(info.MemTotal)))
	line("", "Name", info.Name)
	line("", "Docker Root Dir", info.DockerRootDir)
	return tabs.Flush()
}
