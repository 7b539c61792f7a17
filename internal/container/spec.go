package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/sandbox"
)

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100_000

// spec translates the configuration. files are hosts and its like; size is
// that of the person's terminal.
func (c *Containers) spec(ctx context.Context, r *record, files []specs.Mount, size Size) (*specs.Spec, error) {
	config := &r.config
	mounts, err := c.mounts(r)
	if err != nil {
		return nil, err
	}
	ns, err := c.namespaces(ctx, &config.Network)
	if err != nil {
		return nil, err
	}
	args := config.Process.Args()
	if config.Process.Init {
		init, err := initMount()
		if err != nil {
			return nil, err
		}
		files, args = append(files, init), append([]string{init.Destination, "--"}, args...)
	}
	o := sandbox.SpecOptions{
		ID:         config.ID,
		Root:       r.path(filepath.Join(mountDir, "rootfs")),
		ReadOnly:   config.Security.ReadOnly,
		Hostname:   config.Network.Hostname,
		Domainname: config.Network.Domainname,
		Process: sandbox.ProcessOptions{
			Args: args, Env: environment(config), Cwd: config.Process.Dir, User: config.Process.User,
			Terminal: config.Process.Terminal, Width: uint(size.Width), Height: uint(size.Height),
			Rlimits: config.Resources.Ulimits,
		},
		Namespaces:   ns,
		Mounts:       append(files, mounts...),
		ShmSize:      config.Resources.ShmSize,
		Resources:    limits(&config.Resources),
		Sysctl:       config.Security.Sysctls,
		CgroupParent: config.Resources.CgroupParent,
		Security: sandbox.SecurityOptions{
			CapAdd: config.Security.CapAdd, CapDrop: config.Security.CapDrop,
			Privileged: config.Security.Privileged, NoNewPrivileges: config.Security.NoNewPrivileges,
			Seccomp: config.Security.Seccomp, UnmaskPaths: config.Security.UnmaskPaths,
			Foreign: foreign(config),
		},
	}
	if o.Security.Seccomp == builtinSeccomp {
		o.Security.Seccomp = ""
	}
	if config.Resources.OOMScoreAdj != 0 {
		o.Process.OOMScoreAdj = &config.Resources.OOMScoreAdj
	}
	for _, d := range config.Security.Devices {
		device, err := sandbox.HostDevice(d.Source)
		if err != nil {
			return nil, err
		}
		device.Path = d.Target
		o.Devices = append(o.Devices, device)
	}
	return sandbox.NewSpec(o)
}

// initMount puts this program into the container under the name by which it is
// process 1: package reexec. Docker has its own in the same place.
func initMount() (specs.Mount, error) {
	self, err := os.Executable()
	if err != nil {
		return specs.Mount{}, fmt.Errorf("find the init process: %w", err)
	}
	return specs.Mount{
		Destination: "/sbin/docker-init", Type: "bind", Source: self,
		Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"},
	}, nil
}

// builtinSeccomp is Docker's word for its own profile.
const builtinSeccomp = "builtin"

// foreign tells whether the container is to run programs of another
// instruction set than the machine's first: an image of linux/386, say.
func foreign(config *Config) bool {
	parts := strings.Split(config.Platform, "/")
	return config.Security.Seccomp == builtinSeccomp || len(parts) > 1 && parts[1] != runtime.GOARCH
}

// environment is what the process gets: Docker's variables, then those of the
// image and the person.
func environment(config *Config) []string {
	base := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOSTNAME=" + config.Network.Hostname,
	}
	if config.Process.Terminal {
		base = append(base, "TERM=xterm")
	}
	return mergeEnv(base, config.Process.Env)
}

// namespaces translates the modes. "container:NAME" joins what that
// container's first process is in.
func (c *Containers) namespaces(ctx context.Context, n *Network) (ns sandbox.NamespaceOptions, err error) {
	for _, of := range []struct {
		mode string
		kind string
		to   *string
	}{
		{n.Mode, "net", &ns.Network}, {n.PID, "pid", &ns.PID}, {n.IPC, "ipc", &ns.IPC},
		{n.UTS, "uts", &ns.UTS}, {n.Cgroup, "cgroup", &ns.Cgroup},
	} {
		mode, other, _ := strings.Cut(of.mode, ":")
		switch mode {
		case "host":
			*of.to = sandbox.Host
		case "container":
			r, err := c.find(other)
			if err != nil {
				return ns, err
			}
			if !r.running || r.state.Pid == 0 {
				return ns, because(errdefs.ErrConflict, "cannot join %s namespace of a non running container: %s", of.kind, r.config.Name)
			}
			*of.to = fmt.Sprintf("/proc/%d/ns/%s", r.state.Pid, of.kind)
		case "", "bridge", "none", "private", "shareable":
		default:
			return ns, because(errdefs.ErrInvalidArgument, "%s namespace %q: there are host and container:NAME", of.kind, of.mode)
		}
	}
	return ns, nil
}

// limits translates resources; nil if there are none.
func limits(r *Resources) *specs.LinuxResources {
	res := &specs.LinuxResources{}
	any := false
	if r.Memory != 0 || r.MemoryReservation != 0 || r.OOMKillDisable {
		any = true
		m := &specs.LinuxMemory{}
		if r.Memory != 0 {
			m.Limit = &r.Memory
			// As in Docker, as much swap again.
			swap := r.MemorySwap
			if swap == 0 {
				swap = 2 * r.Memory
			}
			m.Swap = &swap
		}
		if r.MemoryReservation != 0 {
			m.Reservation = &r.MemoryReservation
		}
		if r.OOMKillDisable {
			m.DisableOOMKiller = &r.OOMKillDisable
		}
		res.Memory = m
	}
	cpu := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares != 0 {
		shares := uint64(r.CPUShares)
		cpu.Shares = &shares
	}
	quota, period := r.CPUQuota, uint64(r.CPUPeriod)
	if r.NanoCPUs != 0 {
		period = cpuPeriod
		quota = r.NanoCPUs * cpuPeriod / 1e9
	}
	if quota != 0 {
		cpu.Quota = &quota
	}
	if period != 0 {
		cpu.Period = &period
	}
	if cpu.Shares != nil || cpu.Quota != nil || cpu.Period != nil || cpu.Cpus != "" || cpu.Mems != "" {
		any = true
		res.CPU = cpu
	}
	if r.PidsLimit != 0 {
		any = true
		res.Pids = &specs.LinuxPids{Limit: &r.PidsLimit}
	}
	if !any {
		return nil
	}
	return res
}

// mounts translates binds, volumes and memory.
func (c *Containers) mounts(r *record) ([]specs.Mount, error) {
	var mounts []specs.Mount
	for _, m := range r.config.Mounts {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		propagation := m.Propagation
		if propagation == "" {
			propagation = "rprivate"
		}
		switch m.Type {
		case MountTmpfs:
			options := append([]string{"nosuid", "nodev", "noexec", access}, m.Options...)
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options})
		case MountBind:
			if err := bindSource(m); err != nil {
				return nil, err
			}
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: []string{"rbind", propagation, access}})
		case MountVolume:
			v, err := c.Volumes.Get(m.Source)
			if err != nil {
				return nil, err
			}
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: v.Mountpoint, Options: []string{"rbind", propagation, access}})
		default:
			return nil, because(errdefs.ErrInvalidArgument, "mount type %q", m.Type)
		}
	}
	return mounts, nil
}

// bindSource looks whether a bind's source is there, and makes it for -v.
func bindSource(m Mount) error {
	_, err := os.Stat(m.Source)
	if err == nil {
		return nil
	}
	if !os.IsNotExist(err) {
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	if !m.CreateSource {
		return because(errdefs.ErrInvalidArgument, "invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("make the directory to mount: %w", err)
	}
	return nil
}
