package main_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A run that is killed at any moment leaves no process, no mount and no
// control group once the next command has looked.
func TestKilledRunsLeaveNothing(t *testing.T) {
	f := newField(t)
	kills := 30
	if testing.Short() {
		kills = 5
	}
	cid := filepath.Join(t.TempDir(), "cid")
	seconds := "1000." + f.marker
	full := 300 * time.Millisecond
	for i := range kills {
		_ = os.Remove(cid)
		args := []string{"run", "--rm", "--cidfile", cid, "-v", "/anonymous", "busybox", "sleep", seconds}
		if i%2 == 1 {
			args = append([]string{"run", "--network", "none"}, args[2:]...)
		}
		cmd := f.shale(args...)
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			// How long a start takes here and now.
			eventually(t, "the container runs", func() bool { return strings.Contains(f.must("ps"), "Up") })
			full = 2 * time.Since(begin)
		} else {
			time.Sleep(time.Duration(rand.Int64N(int64(full))))
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()

		list := f.must("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Status}}")
		if strings.Contains(list, "Up") {
			t.Fatalf("after kill %d:\n%s", i, list)
		}
		if i%2 == 0 && list != "" {
			t.Fatalf("after kill %d a container with --rm is left:\n%s", i, list)
		}
		f.whole()
		if id, err := os.ReadFile(cid); err == nil {
			groups, _ := filepath.Glob("/sys/fs/cgroup/*/shale-" + string(id))
			top, _ := filepath.Glob("/sys/fs/cgroup/shale-" + string(id))
			if left := append(groups, top...); len(left) > 0 {
				t.Fatalf("after kill %d: %v", i, left)
			}
		}
		if list != "" {
			f.must("rm", "-v", strings.Fields(list)[0])
		}
		if volumes := f.must("volume", "ls", "-q"); volumes != "" {
			// A run that was killed while it made them.
			f.must("volume", "prune", "-f")
		}
	}
	f.must("run", "--rm", "--network", "none", "busybox", "true")
}
