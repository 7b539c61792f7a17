package sandbox

import (
	"path"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// newMounts are the default mounts of a sandbox, then those of o, each deeper
// one after the one that it lies on.
func newMounts(o SpecOptions) []specs.Mount {
	shm := o.ShmSize
	if shm == 0 {
		shm = defaultShmSize
	}
	access := "ro"
	if o.Security.Privileged {
		access = "rw"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{access, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
	}
	if o.Namespaces.IPC == Host {
		mounts = slices.DeleteFunc(mounts, func(m specs.Mount) bool {
			return m.Destination == "/dev/mqueue" || m.Destination == "/dev/shm"
		})
		mounts = append(mounts,
			specs.Mount{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"rbind", "nosuid", "noexec", "nodev"}},
			specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "nosuid", "noexec", "nodev"}})
	}
	own := slices.Clone(o.Mounts)
	slices.SortStableFunc(own, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	for _, m := range own {
		mounts = slices.DeleteFunc(mounts, func(d specs.Mount) bool {
			return path.Clean(d.Destination) == path.Clean(m.Destination)
		})
		mounts = append(mounts, m)
	}
	return mounts
}

// depth counts the components of a path.
func depth(p string) int {
	n := 0
	for p = path.Clean("/" + p); p != "/"; p = path.Dir(p) {
		n++
	}
	return n
}
