package ops

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shaleproject/shale/internal/sandbox"
)

// The control group of a RUN outlives a build that is killed, since nobody is
// left to remove it. Its name says who made it, as the number of the process
// and when that started, so that the next build can tell and remove it.

const runPrefix = "build-"

// runID returns a name for a sandbox that no other has.
func runID() string {
	return fmt.Sprintf("%s%d-%d-%s", runPrefix, os.Getpid(), startTime(), strings.ToLower(rand.Text()[:13]))
}

// startTime is when this process started, in the kernel's clock ticks after
// boot: proc_pid_stat(5), field 22. 0 if /proc doesn't tell.
func startTime() uint64 {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// Field 2, the command, may hold anything; it ends at the last ")".
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return ticks
}

// sweepCgroups removes control groups of builds that are no more. One that
// can't be removed stays: it belongs to somebody else or still has processes.
func sweepCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/shale-build-*", "/sys/fs/cgroup/*/shale-build-*"} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, group := range groups {
			var pid int
			var started uint64
			name := strings.TrimPrefix(filepath.Base(group), "shale-"+runPrefix)
			if n, err := fmt.Sscanf(name, "%d-%d-", &pid, &started); n == 2 && err == nil && !sandbox.Alive(pid, started) {
				_ = os.Remove(group)
			}
		}
	}
}
