package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/engine"
)

// Version is the release, set by the linker (-X). A build from a checkout
// keeps what is written here.
var Version = "0.1.0-dev"

// APIVersion is the version of the Docker Engine API whose types shale speaks.
const APIVersion = "1.51"

// versionInfo has the placeholders of `docker version --format`. Client and
// Server are the same program: there is no daemon.
type versionInfo struct {
	Client, Server versionPart
}

type versionPart struct {
	APIVersion string `json:"ApiVersion"`
	Arch       string
	GitCommit  string
	GoVersion  string
	Os         string
	Version    string
}

func currentVersion() versionInfo {
	part := versionPart{
		APIVersion: APIVersion,
		Arch:       runtime.GOARCH,
		GitCommit:  commit(),
		GoVersion:  runtime.Version(),
		Os:         runtime.GOOS,
		Version:    Version,
	}
	return versionInfo{part, part}
}

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 7 {
			return setting.Value[:7]
		}
	}
	return ""
}

func versionLine() string {
	if c := commit(); c != "" {
		return fmt.Sprintf("shale version %s, build %s", Version, c)
	}
	return "shale version " + Version
}

func versionCommand(*engine.Engine) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the shale version information",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := currentVersion()
			if spec != "" {
				return format.One(cmd.OutOrStdout(), spec, v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "shale:\n Version:      %s\n API version:  %s\n Go version:   %s\n Git commit:   %s\n OS/Arch:      %s/%s\n",
				v.Client.Version, v.Client.APIVersion, v.Client.GoVersion, v.Client.GitCommit, v.Client.Os, v.Client.Arch)
			return err
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a Go template, or 'json'")
	return cmd
}
