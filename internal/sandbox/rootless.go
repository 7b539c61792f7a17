package sandbox

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/sys"
)

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
	}
	if sys.MappedIDs() > ttyGroup {
		return &less
	}
	less.Mounts = slices.Clone(spec.Mounts)
	for i, m := range less.Mounts {
		if m.Type == "devpts" {
			less.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "gid=5" })
		}
	}
	return &less
}
