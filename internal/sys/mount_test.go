//go:build linux

package sys

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needMounts(t *testing.T) {
	t.Helper()
	if err := PrivateMounts(func() error { return nil }); err != nil {
		t.Skip(err)
	}
}

// mountinfo returns what the process as a whole sees mounted below dir.
func mountinfo(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}

func mkdirs(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrivateMountsAreSeenByChildrenOnly(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	at := filepath.Join(dir, "at")
	err := PrivateMounts(func() error {
		if err := MountAll([]Mount{{Type: "tmpfs", Target: at}}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(at, "file"), nil, 0o600); err != nil {
			return err
		}
		if out, err := exec.Command("ls", at).Output(); err != nil || string(out) != "file\n" {
			return fmt.Errorf("child sees %q: %v", out, err)
		}
		if seen := mountinfo(t, dir); seen != nil {
			return fmt.Errorf("the rest of the process sees %q", seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen := mountinfo(t, dir); seen != nil {
		t.Errorf("left behind: %q", seen)
	}
	if _, err := os.Stat(filepath.Join(at, "file")); err == nil {
		t.Error("the file is outside of its mount")
	}
}

func TestPrivateMountsReturnAfterGoexit(t *testing.T) {
	needMounts(t)
	err := PrivateMounts(func() error { runtime.Goexit(); return nil })
	if err == nil {
		t.Error("no error from a function that ended its goroutine")
	}
}

func TestPrivateMountsNeverTakeTheFirstThread(t *testing.T) {
	needMounts(t)
	before, err := os.Readlink("/proc/self/ns/mnt") // that of the first thread
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := PrivateMounts(func() error {
				if now, err := os.Readlink("/proc/thread-self/ns/mnt"); err != nil || now == before {
					return fmt.Errorf("not a namespace of its own: %s, %v", now, err)
				}
				if unix.Gettid() == unix.Getpid() {
					return errors.New("on the first thread")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the process moved from %s to %s, %v", before, after, err)
	}
}

func TestMountIsAValue(t *testing.T) {
	m := Mount{Type: "overlay", Target: "/t", Flags: ReadOnly | NoDev, Data: Option("upperdir", `/a,b\c`), Layers: []string{"/1", "/2"}}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got Mount
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if got := splitData("ro," + m.Data + ",,x=y"); !reflect.DeepEqual(got, []string{"ro", `upperdir=/a,b\c`, "x=y"}) {
		t.Errorf("options %q", got)
	}
}

func TestBindMountsObeyTheirFlags(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	mkdirs(t, dir, "src/sub")
	write(t, filepath.Join(dir, "src/file"), "content")
	j := func(name string) string { return filepath.Join(dir, name) }
	err := PrivateMounts(func() error {
		err := MountAll([]Mount{
			{Type: "tmpfs", Target: j("src/sub"), Data: "size=1m,mode=0755"},
			{Source: j("src"), Target: j("tree"), Flags: Bind | Recursive | ReadOnly},
			{Source: j("src"), Target: j("flat"), Flags: Bind},
			{Source: j("src/file"), Target: j("deep/er/file"), Flags: Bind | NoExec},
		})
		if err != nil {
			return err
		}
		for _, name := range []string{"tree/new", "tree/sub/new"} {
			if err := os.WriteFile(j(name), nil, 0o600); err == nil {
				t.Errorf("%s could be written in a read-only mount", name)
			}
		}
		for _, name := range []string{"src/sub/new", "flat/sub/new2", "src/new3"} {
			if err := os.WriteFile(j(name), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(j("flat/sub/new")); err == nil {
			t.Error("a bind mount that is not recursive shows the mount below")
		}
		if got, err := os.ReadFile(j("deep/er/file")); string(got) != "content" {
			t.Errorf("bound file: %q, %v", got, err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(j("deep/er/file"), &st); err != nil || st.Flags&unix.ST_NOEXEC == 0 {
			t.Errorf("flags of the bound file: %#x, %v", st.Flags, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFreshFileSystemsTakeFlagsAndOptions(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	err := PrivateMounts(func() error {
		err := MountAll([]Mount{
			{Type: "tmpfs", Source: "shale", Target: dir, Flags: NoDev | NoSuid | NoExec, Data: "mode=0700,nr_inodes=10,size=64k"},
			{Type: "proc", Source: "proc", Target: dir + "/proc", Flags: ReadOnly},
		})
		if err != nil {
			return err
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return err
		}
		if want := int64(unix.ST_NODEV | unix.ST_NOSUID | unix.ST_NOEXEC); st.Flags&want != want || st.Files != 10 {
			t.Errorf("tmpfs: flags %#x, %d inodes", st.Flags, st.Files)
		}
		if _, err := os.Stat(dir + "/proc/1/status"); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMountErrorsSayWhy(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	mkdirs(t, dir, "lower", "upper", "work/in")
	write(t, filepath.Join(dir, "garbage"), strings.Repeat("x", 8192))
	j := func(name string) string { return filepath.Join(dir, name) }
	cases := []struct {
		name  string
		m     Mount
		text  string
		class func(error) bool
	}{
		{"unknown type", Mount{Type: "nosuchfs"}, "not in this kernel", errdefs.IsNotImplemented},
		{"unknown option", Mount{Type: "tmpfs", Data: "nosuch=1"}, "nosuch", errdefs.IsInvalidArgument},
		{"unknown flag", Mount{Type: "tmpfs", Flags: unix.MS_REMOUNT}, "mount flags", errdefs.IsInvalidArgument},
		{"missing source", Mount{Source: j("none"), Flags: Bind}, "none at ", errdefs.IsNotFound},
		{"missing lower", Mount{Type: "overlay", Layers: []string{j("none"), j("lower")}}, "none", errdefs.IsNotFound},
		{"work in upper", Mount{Type: "overlay", Layers: []string{j("lower")}, Data: "upperdir=" + j("work") + ",workdir=" + j("work/in")},
			"workdir and upperdir must be separate subtrees", errdefs.IsInvalidArgument},
		{"not an image", Mount{Type: "erofs", Source: j("garbage")}, "superblock", errdefs.IsInvalidArgument},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.m.Target = j("target")
			err := PrivateMounts(func() error { return MountAll([]Mount{c.m}) })
			if err == nil || !strings.Contains(err.Error(), c.text) || !c.class(err) {
				t.Errorf("got: %v", err)
			}
		})
	}
}

func TestKilledProcessLeavesNoMount(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	mkdirs(t, dir, "at", "upper", "work")
	cmd := exec.Command("/proc/self/exe", dir+"/at", dir+"/upper", dir+"/work")
	cmd.Env = append(os.Environ(), role+"=hold")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	if seen := mountinfo(t, dir); seen != nil {
		t.Errorf("the machine sees %q", seen)
	}
	if used, err := Mounted(dir + "/at/lower"); err != nil || !used {
		t.Errorf("layer mounted: %v, %v", used, err)
	}
	if used, err := Mounted(dir + "/at/low"); err != nil || used {
		t.Errorf("beginning of a name mounted: %v, %v", used, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if used, err := Mounted(dir); err != nil || used {
		t.Errorf("mounted after the end: %v, %v", used, err)
	}
	if err := os.Remove(dir + "/at"); err != nil {
		t.Error(err)
	}
}

func TestOverlayTakesManyLayersAndOddNames(t *testing.T) {
	needMounts(t)
	dir := filepath.Join(t.TempDir(), `a,b:c\d`, strings.Repeat("long", 60))
	ways := map[string]struct {
		mount func(Mount, unix.MountAttr) (int, error)
		count int
	}{
		"layer by layer": {func(m Mount, a unix.MountAttr) (int, error) { return m.overlayByLayer(a, false) }, 300},
		"one page":       {Mount.overlayByPage, 150},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			here := filepath.Join(dir, name)
			var layers []string
			for i := range way.count {
				mkdirs(t, here, fmt.Sprint(i))
				write(t, filepath.Join(here, fmt.Sprint(i), fmt.Sprint("file", i)), "")
				write(t, filepath.Join(here, fmt.Sprint(i), "top"), fmt.Sprint(i))
				layers = append(layers, filepath.Join(here, fmt.Sprint(i)))
			}
			mkdirs(t, here, "upper", "work", "at")
			m := Mount{Type: "overlay", Layers: layers, Target: here + "/at", Flags: NoDev,
				Data: "metacopy=off," + Option("upperdir", here+"/upper") + "," + Option("workdir", here+"/work")}
			err := PrivateMounts(func() error {
				attr, err := m.attr()
				if err != nil {
					return err
				}
				fd, err := way.mount(m, attr)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := unix.MoveMount(fd, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
					return err
				}
				entries, err := os.ReadDir(m.Target)
				if top, _ := os.ReadFile(m.Target + "/top"); err != nil || len(entries) != way.count+1 || string(top) != fmt.Sprint(way.count-1) {
					return fmt.Errorf("%d entries, top is %q, %v", len(entries), top, err)
				}
				return os.WriteFile(m.Target+"/new", nil, 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(here + "/upper/new"); err != nil {
				t.Error(err)
			}
		})
	}
}
