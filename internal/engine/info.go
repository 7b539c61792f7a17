package engine

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/sandbox"
)

// Info describes an engine and its machine; the fields are those of `docker
// info --format`.
type Info struct {
	Architecture       string
	CgroupDriver       string
	CgroupVersion      string
	CPUCfsQuota        bool
	CPUSet             bool
	CPUShares          bool
	Containers         int
	ContainersPaused   int
	ContainersRunning  int
	ContainersStopped  int
	DefaultRuntime     string
	DockerRootDir      string
	Driver             string
	DriverStatus       [][2]string
	Images             int
	IndexServerAddress string
	KernelVersion      string
	MemoryLimit        bool
	MemTotal           int64 // bytes
	NCPU               int
	Name               string // of the machine
	Network            string // the default one
	NetworkStatus      [][2]string
	OSType             string
	OperatingSystem    string
	PidsLimit          bool
	SecurityOptions    []string
	ServerVersion      string
	Warnings           []string
}

// Info looks at the store and the machine. What can't be found out becomes a
// warning: `shale info` is what people run when something is wrong.
func (e *Engine) Info(ctx context.Context, version string) (Info, error) {
	s, err := e.Store()
	if err != nil {
		return Info{}, err
	}
	name, _ := os.Hostname()
	info := Info{
		Architecture:       runtime.GOARCH,
		CgroupDriver:       "cgroupfs",
		CgroupVersion:      cgroupVersion(),
		DefaultRuntime:     "libcontainer",
		DockerRootDir:      s.Root(),
		IndexServerAddress: "https://index.docker.io/v1/",
		KernelVersion:      strings.TrimSpace(read("/proc/sys/kernel/osrelease")),
		MemTotal:           memory(read("/proc/meminfo")),
		NCPU:               runtime.NumCPU(),
		Name:               name,
		OSType:             runtime.GOOS,
		OperatingSystem:    prettyName(read("/etc/os-release")),
		SecurityOptions:    []string{"name=seccomp,profile=builtin"},
		ServerVersion:      version,
	}
	if e.Config.Runtime != "" {
		info.DefaultRuntime = e.Config.Runtime
	}
	if e.Config.Rootless {
		info.SecurityOptions = append(info.SecurityOptions, "name=rootless")
	}
	if d, why, err := e.Rootfs(); err == nil {
		info.Driver = d.Name()
		info.DriverStatus = [][2]string{{"Why", why}}
	} else {
		info.Driver = "none"
		info.Warnings = append(info.Warnings, "containers and RUN can't be run: "+err.Error())
	}
	if e.Config.NoNamespace == nil {
		network, why := e.Networks().Describe()
		info.Network, info.NetworkStatus = network, [][2]string{{"Why", why}}
	} else {
		info.Network = "none"
	}
	if limits := sandbox.LimitsError(); limits == nil {
		info.MemoryLimit, info.CPUCfsQuota, info.CPUShares, info.CPUSet, info.PidsLimit = true, true, true, true, true
	} else {
		info.CgroupDriver = "none"
		info.Warnings = append(info.Warnings, "limits (--memory, --cpus, --pids-limit) are discarded: "+limits.Error())
	}
	images, err := e.Images()
	if err != nil {
		return Info{}, err
	}
	list, err := images.List(ctx, image.ListOptions{})
	if err != nil {
		return Info{}, err
	}
	info.Images = len(list)
	return info, e.countContainers(ctx, &info)
}

// countContainers fills in the containers by what they do.
func (e *Engine) countContainers(ctx context.Context, info *Info) error {
	containers, err := e.Containers()
	if err != nil {
		return err
	}
	list, err := containers.List(ctx, container.ListOptions{All: true})
	if err != nil {
		return err
	}
	info.Containers = len(list)
	for _, c := range list {
		switch c.Status {
		case container.Running, container.Restarting:
			info.ContainersRunning++
		case container.Paused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	return nil
}

// read returns the content of a small file of the kernel's or the machine's,
// or nothing.
func read(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(data)
}

func cgroupVersion() string {
	if read("/sys/fs/cgroup/cgroup.controllers") != "" {
		return "2"
	}
	return "1"
}

// memory is MemTotal of proc_meminfo(5), in bytes.
func memory(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// prettyName is PRETTY_NAME of os-release(5).
func prettyName(release string) string {
	for line := range strings.Lines(release) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return runtime.GOOS
}
