package container

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
)

// Inspect is a container as `docker inspect` shows it. What shale doesn't have
// is left out or empty.
type Inspect struct {
	ID              string `json:"Id"`
	Created         time.Time
	Path            string
	Args            []string
	State           InspectState
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      InspectHost
	GraphDriver     InspectDriver
	SizeRw          *int64 `json:",omitempty"`
	Mounts          []InspectMount
	Config          InspectConfig
	NetworkSettings InspectNetwork
}

// InspectState is what the container does.
type InspectState struct {
	Status     Status
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
}

// InspectHost is what it was given of the host.
type InspectHost struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       InspectLog
	NetworkMode     string
	PortBindings    map[string][]InspectBinding
	RestartPolicy   InspectRestart
	AutoRemove      bool
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	OomScoreAdj     int
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	ShmSize         int64
	Runtime         string
	CPUShares       int64 `json:"CpuShares"`
	Memory          int64
	NanoCPUs        int64 `json:"NanoCpus"`
	CgroupParent    string
	CPUPeriod       int64 `json:"CpuPeriod"`
	CPUQuota        int64 `json:"CpuQuota"`
	CpusetCpus      string
	CpusetMems      string
	Devices         []InspectDevice
	MemoryReserv    int64 `json:"MemoryReservation"`
	MemorySwap      int64
	OomKillDisable  bool
	Init            bool
	PidsLimit       *int64
	Ulimits         []InspectUlimit
	Sysctls         map[string]string `json:",omitempty"`
	MaskedPaths     []string
	ReadonlyPaths   []string
}

// The parts of InspectHost.
type (
	InspectLog struct {
		Type   string
		Config map[string]string
	}
	InspectBinding struct{ HostIP, HostPort string }
	InspectRestart struct {
		Name              string
		MaximumRetryCount int
	}
	InspectDevice struct{ PathOnHost, PathInContainer, CgroupPermissions string }
	InspectUlimit struct {
		Name       string
		Hard, Soft int64
	}
)

// InspectDriver says how its layers become a file system.
type InspectDriver struct {
	Name string
	Data map[string]string
}

// InspectMount is a mount.
type InspectMount struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// InspectConfig is the process.
type InspectConfig struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	Labels       map[string]string
	StopSignal   string `json:",omitempty"`
	StopTimeout  *int   `json:",omitempty"`
}

// InspectNetwork is how it is connected.
type InspectNetwork struct {
	SandboxID   string
	SandboxKey  string
	Ports       map[string][]InspectBinding
	Gateway     string
	IPAddress   string
	IPPrefixLen int
	MacAddress  string
	Networks    map[string]InspectEndpoint
}

// InspectEndpoint is its place in one network.
type InspectEndpoint struct {
	IPAMConfig          *struct{}
	Links, Aliases      []string
	MacAddress          string
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

// Inspect describes a container. With size it measures what the container
// has written, in bytes.
func (c *Containers) Inspect(_ context.Context, name string, size bool) (Inspect, error) {
	r, err := c.find(name)
	if err != nil {
		return Inspect{}, err
	}
	config, state := &r.config, &r.state
	args := config.Process.Args()
	info := Inspect{
		ID: config.ID, Created: config.Created, Path: args[0], Args: args[1:],
		Image: config.ImageID.String(), Name: "/" + config.Name, RestartCount: state.RestartCount,
		Driver: "overlayfs", Platform: "linux",
		ResolvConfPath: r.path("resolv.conf"), HostnamePath: r.path("hostname"), HostsPath: r.path("hosts"),
		LogPath:         r.path(logFile),
		GraphDriver:     InspectDriver{Name: "overlayfs", Data: map[string]string{"UpperDir": r.path(upperDir), "WorkDir": r.path(workDir)}},
		State:           inspectState(r),
		HostConfig:      inspectHost(config),
		Config:          inspectConfig(config),
		NetworkSettings: inspectNetwork(r),
		Mounts:          []InspectMount{},
	}
	for _, m := range config.Mounts {
		info.Mounts = append(info.Mounts, c.inspectMount(m))
	}
	if size {
		n, err := r.size()
		if err != nil {
			return info, err
		}
		info.SizeRw = &n
	}
	return info, nil
}

func inspectState(r *record) InspectState {
	status := r.status()
	return InspectState{
		Status: status, Running: status == Running || status == Paused || status == Restarting,
		Paused: status == Paused, Restarting: status == Restarting,
		OOMKilled: r.state.OOMKilled, Pid: r.state.Pid, ExitCode: r.state.ExitCode, Error: r.state.Error,
		StartedAt: r.state.StartedAt, FinishedAt: r.state.FinishedAt,
	}
}

func inspectHost(config *Config) InspectHost {
	n, res, sec := &config.Network, &config.Resources, &config.Security
	h := InspectHost{
		LogConfig:    InspectLog{Type: orElse(config.Life.LogDriver, "json-file"), Config: config.Life.LogOpts},
		NetworkMode:  n.Mode,
		PortBindings: bindings(n.Publish),
		RestartPolicy: InspectRestart{
			Name: orElse(config.Life.Restart.Name, "no"), MaximumRetryCount: config.Life.Restart.MaximumRetryCount,
		},
		AutoRemove: config.Life.AutoRemove, CapAdd: sec.CapAdd, CapDrop: sec.CapDrop,
		CgroupnsMode: orElse(n.Cgroup, "private"),
		DNS:          orEmpty(n.DNS), DNSOptions: orEmpty(n.DNSOptions), DNSSearch: orEmpty(n.DNSSearch),
		ExtraHosts: n.ExtraHosts, GroupAdd: config.Process.Groups, IpcMode: orElse(n.IPC, "private"),
		OomScoreAdj: res.OOMScoreAdj, PidMode: n.PID, Privileged: sec.Privileged, PublishAllPorts: n.PublishAll,
		ReadonlyRootfs: sec.ReadOnly, UTSMode: n.UTS, ShmSize: res.ShmSize, Runtime: "libcontainer",
		CPUShares: res.CPUShares, Memory: res.Memory, NanoCPUs: res.NanoCPUs, CgroupParent: res.CgroupParent,
		CPUPeriod: res.CPUPeriod, CPUQuota: res.CPUQuota, CpusetCpus: res.CpusetCpus, CpusetMems: res.CpusetMems,
		Devices: []InspectDevice{}, MemoryReserv: res.MemoryReservation, MemorySwap: res.MemorySwap,
		OomKillDisable: res.OOMKillDisable, Init: config.Process.Init, Ulimits: []InspectUlimit{}, Sysctls: sec.Sysctls,
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if res.PidsLimit != 0 {
		h.PidsLimit = &res.PidsLimit
	}
	if sec.NoNewPrivileges {
		h.SecurityOpt = append(h.SecurityOpt, "no-new-privileges")
	}
	if sec.Seccomp != "" {
		h.SecurityOpt = append(h.SecurityOpt, "seccomp="+sec.Seccomp)
	}
	for _, d := range sec.Devices {
		h.Devices = append(h.Devices, InspectDevice{d.Source, d.Target, d.Access})
	}
	for _, u := range res.Ulimits {
		h.Ulimits = append(h.Ulimits, InspectUlimit{strings.ToLower(strings.TrimPrefix(u.Type, "RLIMIT_")), int64(u.Hard), int64(u.Soft)})
	}
	for _, m := range config.Mounts {
		switch {
		case m.Type == MountTmpfs:
			if h.Tmpfs == nil {
				h.Tmpfs = map[string]string{}
			}
			h.Tmpfs[m.Target] = strings.Join(m.Options, ",")
		case !m.Anonymous:
			bind := m.Source + ":" + m.Target
			if m.ReadOnly {
				bind += ":ro"
			}
			h.Binds = append(h.Binds, bind)
		}
	}
	return h
}

func inspectConfig(config *Config) InspectConfig {
	p := &config.Process
	c := InspectConfig{
		Hostname: config.Network.Hostname, Domainname: config.Network.Domainname, User: p.User,
		AttachStdin:  p.Stdin && slices.Contains(p.Attached, "stdin"),
		AttachStdout: slices.Contains(p.Attached, "stdout"), AttachStderr: slices.Contains(p.Attached, "stderr"),
		Tty: p.Terminal, OpenStdin: p.Stdin, StdinOnce: p.StdinOnce, Env: environment(config), Cmd: p.Cmd,
		Image: config.Image, WorkingDir: p.Dir, Entrypoint: p.Entrypoint, Labels: config.Labels,
		StopSignal: config.Life.StopSignal, StopTimeout: config.Life.StopTimeout,
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, e := range config.Network.Expose {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[e] = struct{}{}
	}
	return c
}

func inspectNetwork(r *record) InspectNetwork {
	n := InspectNetwork{Ports: map[string][]InspectBinding{}, Networks: map[string]InspectEndpoint{}}
	mode := r.config.Network.Mode
	e := r.state.Endpoint
	if r.running {
		n.Ports = bindings(e.Ports)
		for _, p := range r.config.Network.Expose {
			if _, found := n.Ports[p]; !found {
				n.Ports[p] = nil
			}
		}
		n.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", r.state.Pid)
		n.SandboxID = r.config.ID
	}
	n.Gateway, n.MacAddress = e.Gateway, e.MAC
	if prefix, err := netip.ParsePrefix(e.IP); err == nil {
		n.IPAddress, n.IPPrefixLen = prefix.Addr().String(), prefix.Bits()
	}
	if !strings.HasPrefix(mode, "container:") {
		n.Networks[mode] = InspectEndpoint{
			MacAddress: n.MacAddress, NetworkID: mode, EndpointID: r.config.ID,
			Gateway: n.Gateway, IPAddress: n.IPAddress, IPPrefixLen: n.IPPrefixLen,
		}
	}
	return n
}

func (c *Containers) inspectMount(m Mount) InspectMount {
	i := InspectMount{Type: m.Type, Source: m.Source, Destination: path.Clean(m.Target), RW: !m.ReadOnly, Propagation: orElse(m.Propagation, "rprivate")}
	if m.ReadOnly {
		i.Mode = "ro"
	}
	switch m.Type {
	case MountVolume:
		i.Name, i.Driver, i.Propagation = m.Source, "local", ""
		if v, err := c.Volumes.Get(m.Source); err == nil {
			i.Source = v.Mountpoint
		}
	case MountTmpfs:
		i.Propagation = ""
	}
	return i
}

// bindings groups ports as Docker does: "80/tcp" -> host addresses.
func bindings(ports []network.Port) map[string][]InspectBinding {
	all := map[string][]InspectBinding{}
	for _, b := range portBindings(ports) {
		all[b.Inner] = append(all[b.Inner], InspectBinding{b.host, b.port})
	}
	return all
}

// PortBinding is one line of `docker port`.
type PortBinding struct {
	// Inner is "80/tcp", Outer "0.0.0.0:8080".
	Inner, Outer string

	host, port string
}

func portBindings(ports []network.Port) []PortBinding {
	var all []PortBinding
	for _, p := range ports {
		hosts := []string{"0.0.0.0", "::"}
		if p.HostIP.IsValid() {
			hosts = []string{p.HostIP.String()}
		}
		for _, host := range hosts {
			b := PortBinding{Inner: fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol), host: host}
			if p.HostPort != 0 {
				b.port = strconv.Itoa(int(p.HostPort))
			}
			outer := host
			if strings.Contains(host, ":") {
				outer = "[" + host + "]"
			}
			b.Outer = outer + ":" + b.port
			all = append(all, b)
		}
	}
	return all
}

// Ports returns the ports that a running container publishes.
func (c *Containers) Ports(_ context.Context, name string) ([]PortBinding, error) {
	r, err := c.find(name)
	if err != nil || !r.running {
		return nil, err
	}
	return portBindings(r.state.Endpoint.Ports), nil
}

// Prune removes the containers that don't run and match, and returns their
// ids and how many bytes they had written.
func (c *Containers) Prune(ctx context.Context, filters image.Filters) (removed []string, freed int64, err error) {
	for key := range filters {
		if k := strings.TrimSuffix(key, "!"); k != "label" && k != "until" {
			return nil, 0, because(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	until, err := c.until(filters)
	if err != nil {
		return nil, 0, err
	}
	all, err := c.all(ctx)
	if err != nil {
		return nil, 0, err
	}
	labels := image.Filters{}
	for _, key := range []string{"label", "label!"} {
		if values, found := filters[key]; found {
			labels[key] = values
		}
	}
	for _, r := range all {
		keep, err := c.matches(ctx, r, all, labels)
		if err != nil {
			return removed, freed, err
		}
		if r.running || !keep || !until.IsZero() && !r.config.Created.Before(until) {
			continue
		}
		size, err := r.size()
		if err != nil {
			return removed, freed, err
		}
		if err := c.Remove(ctx, r.config.ID, RemoveOptions{}); errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
			continue
		} else if err != nil {
			return removed, freed, err
		}
		removed, freed = append(removed, r.config.ID), freed+size
	}
	return removed, freed, nil
}

// until reads the filter of that name: a duration before now, or a time.
func (c *Containers) until(filters image.Filters) (time.Time, error) {
	values := filters["until"]
	if len(values) == 0 {
		return time.Time{}, nil
	}
	v := values[len(values)-1]
	if d, err := time.ParseDuration(v); err == nil {
		return c.Now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, because(errdefs.ErrInvalidArgument, "invalid filter 'until=%s'", v)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
