package sandbox

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Hasten is for a caller that is going to Start something in a moment and has
// other work to do before. It returns at once.
//
// To move a process into a control group the kernel takes a lock that costs a
// grace period of RCU (percpu_down_write of cgroup_threadgroup_rwsem), 5 to
// 15 ms during which nobody computes, unless the lock was taken shortly
// before. So it is taken now: by moving this process to where it is.
func Hasten() {
	go func() {
		file := ownCgroup()
		if file == "" {
			return
		}
		// Whatever goes wrong, the start is only slower.
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		_, _ = f.WriteString("0")
		_ = f.Close()
	}()
}

// ownCgroup is the file "cgroup.procs" of the control group that this process
// is in: of version 2 or, where that has no processes, of the devices'.
func ownCgroup() string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		// cgroups(7): hierarchy, controllers, path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root := ""
		switch {
		case fields[1] == "devices":
			root = "/sys/fs/cgroup/devices"
		case fields[0] == "0" && unix.Access("/sys/fs/cgroup/cgroup.procs", unix.W_OK) == nil:
			root = "/sys/fs/cgroup"
		}
		if root == "" {
			continue
		}
		file := filepath.Join(root, fields[2], "cgroup.procs")
		if unix.Access(file, unix.W_OK) == nil {
			return file
		}
	}
	return ""
}
