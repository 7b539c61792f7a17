package sandbox

import (
	"errors"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/sys"
)

// LimitsError says why limits of memory, processors and processes are not
// kept here; nil if they are. Without a control group a process runs without
// its limits, as in Docker.
func LimitsError() error {
	switch {
	case sys.InUserNamespace():
		return errors.New("an ordinary user's processes have no control group of their own")
	case !cgroupsWritable():
		return errors.New("no control group can be made in /sys/fs/cgroup")
	}
	return nil
}

// ttyGroup is the group of terminals, which the default mount of devpts names.
const ttyGroup = 5

// rootlessSpec returns spec without what a process can't have that may not
// make control groups or has one id only.
func rootlessSpec(spec *specs.Spec) *specs.Spec {
	less := *spec
	if spec.Linux != nil {
		// libcontainer goes without a control group that it may not make only
		// if nobody has said which it has to be.
		linux := *spec.Linux
		linux.CgroupsPath, less.Linux = "", &linux
		if linux.Resources != nil {
			linux.Resources = &specs.LinuxResources{Devices: linux.Resources.Devices}
		}
	}
	less.Mounts = slices.Clone(spec.Mounts)
	for i, m := range less.Mounts {
		switch {
		case m.Type == "devpts" && sys.MappedIDs() <= ttyGroup:
			less.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "gid=5" })
		case m.Type == "sysfs" && !ownsNetwork(spec) && sys.InUserNamespace():
			// sysfs shows a network, and only its owner may mount that.
			less.Mounts[i] = specs.Mount{
				Destination: m.Destination, Type: "bind", Source: "/sys",
				Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"},
			}
		}
	}
	return &less
}

// ownsNetwork reports whether spec asks for a network namespace that is new.
func ownsNetwork(spec *specs.Spec) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace && n.Path == ""
	})
}
