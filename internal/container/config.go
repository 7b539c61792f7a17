package container

import (
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/sandbox"
)

// Settings are what a person says about a container. The zero value is
// Docker's default.
type Settings struct {
	Process   Process
	Network   Network
	Mounts    []Mount
	Resources Resources
	Security  Security
	Life      Life
	Labels    map[string]string `json:",omitempty"`
}

// Process is the command of a container.
type Process struct {
	// Entrypoint replaces the image's, and its Cmd; nil keeps both. A list
	// that holds one empty string takes it away.
	Entrypoint []string `json:",omitempty"`

	// Cmd replaces the image's.
	Cmd []string `json:",omitempty"`

	// Env has "NAME=VALUE"; "NAME" alone takes away what the image sets.
	Env    []string `json:",omitempty"`
	Dir    string   `json:",omitempty"`
	User   string   `json:",omitempty"`
	Groups []string `json:",omitempty"`

	Terminal bool `json:",omitempty"`
	// Stdin keeps the standard input open.
	Stdin bool `json:",omitempty"`
	// StdinOnce closes it when the first one who was attached leaves.
	StdinOnce bool `json:",omitempty"`
	// Attached are the streams that `run` connected: "stdin", "stdout", "stderr".
	Attached []string `json:",omitempty"`

	// Init runs a small init as process 1.
	Init bool `json:",omitempty"`
}

// Network is how a container is connected.
type Network struct {
	// Mode is "bridge" (or empty), "none", "host" or "container:ID".
	Mode       string         `json:",omitempty"`
	Hostname   string         `json:",omitempty"`
	Domainname string         `json:",omitempty"`
	Publish    []network.Port `json:",omitempty"`
	PublishAll bool           `json:",omitempty"`
	// Expose has "80/tcp"; those of the image are added.
	Expose     []string `json:",omitempty"`
	DNS        []string `json:",omitempty"`
	DNSSearch  []string `json:",omitempty"`
	DNSOptions []string `json:",omitempty"`
	// ExtraHosts has "name:address".
	ExtraHosts []string `json:",omitempty"`
	// PID, IPC and UTS are "", "host" or "container:ID".
	PID string `json:",omitempty"`
	IPC string `json:",omitempty"`
	UTS string `json:",omitempty"`
	// Cgroup is "" (private), "private" or "host".
	Cgroup string `json:",omitempty"`
}

// Kinds of Mount.
const (
	MountBind   = "bind"
	MountVolume = "volume"
	MountTmpfs  = "tmpfs"
)

// Mount is a directory or file of the host, a volume, or memory.
type Mount struct {
	Type string
	// Source is a path of the host or the name of a volume. A volume without
	// a name is anonymous and gets one.
	Source   string `json:",omitempty"`
	Target   string
	ReadOnly bool `json:",omitempty"`
	// CreateSource makes a missing directory of the host, as -v does and
	// --mount does not.
	CreateSource bool `json:",omitempty"`
	// NoCopy keeps the image's files out of a new volume.
	NoCopy bool `json:",omitempty"`
	// Anonymous volumes go with the container.
	Anonymous bool `json:",omitempty"`
	// Propagation is "rprivate" (or empty), "rshared", "rslave" and so on.
	Propagation string `json:",omitempty"`
	// Options are those of a tmpfs ("size=64m", "mode=1777").
	Options []string `json:",omitempty"`
}

// Resources are limits. Zero means none.
type Resources struct {
	Memory            int64               `json:",omitempty"` // bytes
	MemorySwap        int64               `json:",omitempty"` // bytes of memory and swap; -1 for no limit
	MemoryReservation int64               `json:",omitempty"` // bytes
	NanoCPUs          int64               `json:",omitempty"` // billionths of a CPU
	CPUShares         int64               `json:",omitempty"`
	CPUPeriod         int64               `json:",omitempty"` // microseconds
	CPUQuota          int64               `json:",omitempty"` // microseconds
	CpusetCpus        string              `json:",omitempty"`
	CpusetMems        string              `json:",omitempty"`
	PidsLimit         int64               `json:",omitempty"` // -1 for no limit
	ShmSize           int64               `json:",omitempty"` // bytes
	OOMScoreAdj       int                 `json:",omitempty"`
	OOMKillDisable    bool                `json:",omitempty"`
	Ulimits           []specs.POSIXRlimit `json:",omitempty"`
	CgroupParent      string              `json:",omitempty"`
}

// LimitsDropped says why the limits of r are not kept here; nil if there are
// none, or if they are.
func (r *Resources) LimitsDropped() error {
	if limits(r) == nil {
		return nil
	}
	return sandbox.LimitsError()
}

// Security is what a container may do beyond the default, or less.
type Security struct {
	CapAdd          []string `json:",omitempty"`
	CapDrop         []string `json:",omitempty"`
	Privileged      bool     `json:",omitempty"`
	NoNewPrivileges bool     `json:",omitempty"`
	// Seccomp is the JSON of a profile, "unconfined", "builtin" for Docker's
	// own, or empty for ours, which is Docker's for one instruction set.
	Seccomp     string            `json:",omitempty"`
	UnmaskPaths bool              `json:",omitempty"`
	ReadOnly    bool              `json:",omitempty"`
	Devices     []Device          `json:",omitempty"`
	Sysctls     map[string]string `json:",omitempty"`
}

// Device is a node of the host under a path of the container.
type Device struct {
	Source, Target string
	// Access has of "rwm" what is allowed.
	Access string
}

// Life is how a container ends, and whether it starts again.
type Life struct {
	AutoRemove bool    `json:",omitempty"`
	Restart    Restart `json:",omitzero"`
	StopSignal string  `json:",omitempty"`
	// StopTimeout is in seconds; nil means Docker's 10.
	StopTimeout *int `json:",omitempty"`
	// LogDriver is "json-file" (or empty) or "none".
	LogDriver string            `json:",omitempty"`
	LogOpts   map[string]string `json:",omitempty"`
}

// Restart is a restart policy.
type Restart struct {
	// Name is "no" (or empty), "on-failure", "always" or "unless-stopped".
	Name string `json:",omitempty"`
	// MaximumRetryCount is for on-failure; 0 means no limit.
	MaximumRetryCount int `json:",omitempty"`
}

// Config is a container that has been made: the settings of the person and of
// the image, brought together. It is the file config.json.
type Config struct {
	ID      string
	Name    string
	Created time.Time

	// Image is what the person typed, ImageID the image's id.
	Image   string
	ImageID digest.Digest
	// Manifest is the image's manifest.
	Manifest digest.Digest
	Platform string
	// Layers are the image's, lowest first.
	Layers []digest.Digest

	Settings
}

// Args are the whole command line.
func (p *Process) Args() []string {
	return append(append([]string{}, p.Entrypoint...), p.Cmd...)
}

// Status is what a container does, in Docker's words.
type Status string

// The states of a container.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Exited     Status = "exited"
)

// State is what changes in a container's life. It is the file state.json.
type State struct {
	Status Status
	// Pid is the first process, and StartTime when it started, in clock
	// ticks after boot.
	Pid       int    `json:",omitempty"`
	StartTime uint64 `json:",omitempty"`
	// Owner is the process that owns it.
	Owner int `json:",omitempty"`

	ExitCode     int
	Error        string `json:",omitempty"`
	OOMKilled    bool   `json:",omitempty"`
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int `json:",omitempty"`

	Endpoint Endpoint `json:",omitzero"`
}

// Endpoint is how a running container is connected.
type Endpoint struct {
	// IP is the address with the length of its prefix ("172.18.0.2/16").
	IP      string         `json:",omitempty"`
	Gateway string         `json:",omitempty"`
	MAC     string         `json:",omitempty"`
	Ports   []network.Port `json:",omitempty"`
}
