package sandbox

import (
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// SpecOptions are what a run may say about its sandbox. The zero value, with
// Root and Process.Args set, is Docker's default.
type SpecOptions struct {
	// ID names the control group.
	ID string

	// Root is the directory where the root file system will be.
	Root     string
	ReadOnly bool

	Hostname, Domainname string

	Process    ProcessOptions
	Namespaces NamespaceOptions
	Security   SecurityOptions

	// Mounts come after the default ones. A mount whose destination is that of
	// a default one replaces it.
	Mounts []specs.Mount

	// ShmSize is the size of /dev/shm in bytes; 0 means 64 MiB.
	ShmSize int64

	// Devices are made in /dev and allowed, beyond the default ones.
	Devices []specs.LinuxDevice

	// Resources are limits; nil means none. Device rules are added to it.
	Resources *specs.LinuxResources

	// Sysctl are kernel settings of the sandbox's own namespaces.
	Sysctl map[string]string

	// CgroupParent is the control group to be a child of; empty means the root.
	CgroupParent string
}

// ProcessOptions are the process itself.
type ProcessOptions struct {
	Args, Env []string

	// Cwd is made if it isn't there. Empty means "/".
	Cwd string

	// User is what USER or --user says; empty means root. Start looks it up
	// in the root file system.
	User string

	Terminal bool
	// Width and Height are the terminal's first size in characters.
	Width, Height uint

	// Rlimits are clamped to this process's hard limits.
	Rlimits     []specs.POSIXRlimit
	OOMScoreAdj *int
}

// NamespaceOptions name existing namespaces to join by their path
// ("/proc/123/ns/net"), or Host. Empty makes a new one.
type NamespaceOptions struct {
	Network, PID, IPC, UTS, Cgroup string
}

// Host is the caller's own namespace in NamespaceOptions.
const Host = "host"

const defaultShmSize = 64 << 20

// defaultEnv is what Docker gives a process whose image says nothing.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// NewSpec makes the runtime specification of a sandbox with Docker's default
// profile. An error is about the options and ends in
// [errdefs.ErrInvalidArgument].
func NewSpec(o SpecOptions) (*specs.Spec, error) {
	if len(o.Process.Args) == 0 {
		return nil, because(errdefs.ErrInvalidArgument, "make sandbox: no command specified")
	}
	if !filepath.IsAbs(o.Root) {
		return nil, because(errdefs.ErrInvalidArgument, "make sandbox: root %q is not absolute", o.Root)
	}
	process, err := newProcess(o)
	if err != nil {
		return nil, err
	}
	devices := o.Devices
	if o.Security.Privileged {
		host, err := hostDevices()
		if err != nil {
			return nil, err
		}
		devices = append(host, devices...)
	}
	spec := &specs.Spec{
		Version:    specs.Version,
		Root:       &specs.Root{Path: o.Root, Readonly: o.ReadOnly},
		Process:    process,
		Hostname:   o.Hostname,
		Domainname: o.Domainname,
		Mounts:     newMounts(o),
		Linux: &specs.Linux{
			Namespaces:  newNamespaces(o.Namespaces),
			Devices:     devices,
			Resources:   newResources(o),
			Sysctl:      o.Sysctl,
			CgroupsPath: cgroupPath(o.CgroupParent, o.ID),
		},
	}
	if o.Namespaces.UTS == Host {
		spec.Hostname, spec.Domainname = "", ""
	}
	if err := secure(spec, o.Security); err != nil {
		return nil, err
	}
	return spec, nil
}

func newProcess(o SpecOptions) (*specs.Process, error) {
	p := o.Process
	caps, err := capabilities(o.Security)
	if err != nil {
		return nil, err
	}
	limits, err := clampRlimits(p.Rlimits)
	if err != nil {
		return nil, err
	}
	process := &specs.Process{
		Terminal:        p.Terminal,
		Args:            p.Args,
		Env:             withPath(p.Env),
		Cwd:             p.Cwd,
		User:            specs.User{Username: p.User},
		Rlimits:         limits,
		OOMScoreAdj:     p.OOMScoreAdj,
		NoNewPrivileges: o.Security.NoNewPrivileges,
		Capabilities:    caps,
	}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	if !path.IsAbs(process.Cwd) {
		return nil, because(errdefs.ErrInvalidArgument, "make sandbox: working directory %q is not absolute", p.Cwd)
	}
	if process.User.Username == "" {
		process.User.Username = "0"
	}
	if p.Width != 0 && p.Height != 0 {
		process.ConsoleSize = &specs.Box{Width: p.Width, Height: p.Height}
	}
	return process, nil
}

func newNamespaces(o NamespaceOptions) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		path string
	}{
		{specs.NetworkNamespace, o.Network},
		{specs.PIDNamespace, o.PID},
		{specs.IPCNamespace, o.IPC},
		{specs.UTSNamespace, o.UTS},
		{specs.CgroupNamespace, o.Cgroup},
	} {
		if n.path != Host {
			all = append(all, specs.LinuxNamespace{Type: n.kind, Path: n.path})
		}
	}
	return all
}

func withPath(env []string) []string {
	for _, e := range env {
		if len(e) >= 5 && e[:5] == "PATH=" {
			return env
		}
	}
	return append([]string{defaultPath}, env...)
}
