package image

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Change applies Dockerfile instructions to a config: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR,
// as `docker import -c` and `docker commit -c` take them. Variables of the
// config's environment are expanded. Errors are [errdefs.ErrInvalidArgument].
func Change(c *Config, changes []string) error {
	for _, change := range changes {
		if err := applyChange(&c.Config, change); err != nil {
			return malformed("change %q: %s", change, err)
		}
	}
	return nil
}

func applyChange(c *dockerspec.DockerOCIImageConfig, change string) error {
	parsed, err := parser.Parse(strings.NewReader(change))
	if err != nil {
		return err
	}
	for _, node := range parsed.AST.Children {
		command, err := instructions.ParseCommand(node)
		if err != nil {
			return err
		}
		if expandable, ok := command.(instructions.SupportsSingleWordExpansion); ok {
			lex := shell.NewLex('\\')
			err := expandable.Expand(func(word string) (string, error) {
				expanded, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(c.Env))
				return expanded, err
			})
			if err != nil {
				return err
			}
		}
		if err := applyCommand(c, command); err != nil {
			return err
		}
	}
	return nil
}

func applyCommand(c *dockerspec.DockerOCIImageConfig, command instructions.Command) error {
	switch command := command.(type) {
	case *instructions.CmdCommand:
		c.Cmd = commandLine(c, command.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		c.Entrypoint = commandLine(c, command.ShellDependantCmdLine)
	case *instructions.EnvCommand:
		for _, kv := range command.Env {
			c.Env = setEnv(c.Env, kv.Key, kv.Value)
		}
	case *instructions.ExposeCommand:
		return expose(c, command.Ports)
	case *instructions.HealthCheckCommand:
		c.Healthcheck = healthcheck(command)
	case *instructions.LabelCommand:
		c.Labels = grow(c.Labels)
		for _, kv := range command.Labels {
			c.Labels[kv.Key] = kv.Value
		}
	case *instructions.OnbuildCommand:
		c.OnBuild = append(c.OnBuild, command.Expression)
	case *instructions.StopSignalCommand:
		c.StopSignal = command.Signal
	case *instructions.UserCommand:
		c.User = command.User
	case *instructions.VolumeCommand:
		c.Volumes = grow(c.Volumes)
		for _, v := range command.Volumes {
			c.Volumes[v] = struct{}{}
		}
	case *instructions.WorkdirCommand:
		c.WorkingDir = path.Join("/", c.WorkingDir, command.Path)
		if path.IsAbs(command.Path) {
			c.WorkingDir = path.Clean(command.Path)
		}
	default:
		return fmt.Errorf("%s is not an instruction that changes a config", command.Name())
	}
	return nil
}

// commandLine is a command as a config holds it: the words of the exec form,
// or the shell with the line.
func commandLine(c *dockerspec.DockerOCIImageConfig, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	sh := c.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), strings.Join(line.CmdLine, " "))
}

func setEnv(env []string, key, value string) []string {
	entry := key + "=" + value
	for n, e := range env {
		if have, _, _ := strings.Cut(e, "="); have == key {
			env[n] = entry
			return env
		}
	}
	return append(env, entry)
}

// expose adds ports: "80", "80/udp", "8000-8010".
func expose(c *dockerspec.DockerOCIImageConfig, ports []string) error {
	c.ExposedPorts = grow(c.ExposedPorts)
	for _, p := range ports {
		span, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		var first, last uint16
		low, high, isSpan := strings.Cut(span, "-")
		if !isSpan {
			high = low
		}
		if _, err := fmt.Sscanf(low+" "+high, "%d %d", &first, &last); err != nil || first == 0 || last < first {
			return fmt.Errorf("invalid port %q", p)
		}
		for n := int(first); n <= int(last); n++ {
			c.ExposedPorts[fmt.Sprintf("%d/%s", n, strings.ToLower(proto))] = struct{}{}
		}
	}
	return nil
}

func healthcheck(command *instructions.HealthCheckCommand) *dockerspec.HealthcheckConfig {
	if command.Health == nil {
		return nil
	}
	h := *command.Health
	return &dockerspec.HealthcheckConfig{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
		StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
}

// grow returns a map that may be written to without changing m.
func grow[V any](m map[string]V) map[string]V {
	if m == nil {
		return make(map[string]V)
	}
	return maps.Clone(m)
}
