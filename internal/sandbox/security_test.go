package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sandbox"
)

// The tests whose names begin with a letter and a number are promises about
// published vulnerabilities of other engines.

func sh(command string) sandbox.ProcessOptions {
	return sandbox.ProcessOptions{Args: []string{"sh", "-c", command}}
}

func mustRun(t *testing.T, o sandbox.SpecOptions, change ...func(*sandbox.Config)) (int, string) {
	t.Helper()
	exit, out, err := run(t, o, change...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exit.Code, out
}

func TestR02NoDescriptorLeaksIntoTheSandbox(t *testing.T) {
	root := busybox(t)
	// Descriptors that somebody in this process forgot to close on exec.
	for range 5 {
		f, err := os.Open("/")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			t.Fatal(err)
		}
	}
	_, out := mustRun(t, sandbox.SpecOptions{Root: root, Process: sh("readlink /proc/1/cwd; ls /proc/1/fd; true")})
	if out != "/\n0\n1\n2\n" {
		t.Errorf("descriptors of process 1: %q", out)
	}
	for _, fd := range []int{3, 6, 7, 8, 9, 10, 11, 12, 17, 100} {
		o := sandbox.SpecOptions{Root: root, Process: sh("pwd; ls -a; echo ran")}
		o.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if _, out, err := run(t, o); err == nil {
			t.Errorf("working directory %s: started, and wrote %q", o.Process.Cwd, out)
		}
	}
}

func TestR04DevicesAndFilesAreNotFollowedThroughLinksOfTheImage(t *testing.T) {
	canary := t.TempDir()
	for _, name := range []string{"null", "hosts"} {
		if err := os.WriteFile(filepath.Join(canary, name), []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("ours\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	for _, link := range []struct{ path, target string }{
		{"dev", canary}, {"dev", up + canary[1:]}, {"dev", "/none/at/all"},
		{"dev/null", filepath.Join(canary, "null")}, {"dev/console", filepath.Join(canary, "null")},
		{"dev/pts", canary}, {"dev/shm", up + canary[1:]}, {"dev/mqueue", canary}, {"dev/ptmx", filepath.Join(canary, "null")},
		{"proc", canary}, {"sys", canary}, {"etc/hosts", filepath.Join(canary, "hosts")},
		{"etc/hosts", up + canary[1:] + "/hosts"}, {"etc/hosts", "/none/hosts"}, {"etc", canary},
	} {
		t.Run(strings.ReplaceAll(link.path, "/", "_"), func(t *testing.T) {
			root := busybox(t)
			at := filepath.Join(root, link.path)
			if err := os.RemoveAll(at); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(link.target, at); err != nil {
				t.Fatal(err)
			}
			o := sandbox.SpecOptions{Root: root, Process: sh("echo x > /dev/null; echo y > /etc/hosts; true")}
			o.Mounts = []specs.Mount{{Destination: "/etc/hosts", Type: "bind", Source: hosts, Options: []string{"bind", "ro"}}}
			// Whether it starts is the runtime's choice. What is outside stays.
			_, out, err := run(t, o)
			t.Logf("%s -> %s: %v %s", link.path, link.target, err, out)
			entries, err := os.ReadDir(canary)
			if err != nil || len(entries) != 2 {
				t.Fatalf("the canary's directory has %v, %v", entries, err)
			}
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(canary, e.Name()))
				info, _ := e.Info()
				if err != nil || string(data) != "untouched" || info.Mode() != 0o600 {
					t.Errorf("canary %s: %q, mode %v, %v", e.Name(), data, info.Mode(), err)
				}
			}
		})
	}
}

func TestR05ProcAndSysCannotBeShadowed(t *testing.T) {
	root := busybox(t)
	source := t.TempDir()
	for _, target := range []string{"/proc", "/proc/self", "/proc/sys"} {
		o := sandbox.SpecOptions{Root: root, Process: sh("true")}
		o.Mounts = []specs.Mount{{Destination: target, Type: "bind", Source: source, Options: []string{"rbind"}}}
		if _, _, err := run(t, o); err == nil {
			t.Errorf("a directory over %s: started", target)
		}
	}
}

func TestR06DirectoriesAreMadeInsideOnly(t *testing.T) {
	root := busybox(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	o := sandbox.SpecOptions{Root: root, Process: sh("pwd")}
	o.Process.Cwd = "/link/work"
	_, out, err := run(t, o)
	t.Log(out, err)
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

// capabilities reads the five sets of the shell and what a child has.
const capabilities = "grep -E '^Cap' /proc/self/status | tr -d '\\t'"

func TestR07CapabilitiesAreTheDefaultAndNeverInheritable(t *testing.T) {
	root := busybox(t)
	const standard = "00000000a80425fb" // Docker's fourteen
	const none = "0000000000000000"
	for _, test := range []struct {
		user, add, drop string
		want            [5]string // Inh, Prm, Eff, Bnd, Amb
	}{
		{"", "", "", [5]string{none, standard, standard, standard, none}},
		{"1000", "", "", [5]string{none, none, none, standard, none}},
		{"", "", "ALL", [5]string{none, none, none, none, none}},
		{"", "NET_ADMIN", "ALL", [5]string{none, "0000000000001000", "0000000000001000", "0000000000001000", none}},
		{"", "cap_sys_time", "", [5]string{none, "00000000aa0425fb", "00000000aa0425fb", "00000000aa0425fb", none}},
		{"", "", "chown", [5]string{none, "00000000a80425fa", "00000000a80425fa", "00000000a80425fa", none}},
	} {
		o := sandbox.SpecOptions{Root: root, Process: sh(capabilities)}
		o.Process.User = test.user
		if test.add != "" {
			o.Security.CapAdd = []string{test.add}
		}
		if test.drop != "" {
			o.Security.CapDrop = []string{test.drop}
		}
		want := fmt.Sprintf("CapInh:%s\nCapPrm:%s\nCapEff:%s\nCapBnd:%s\nCapAmb:%s\n",
			test.want[0], test.want[1], test.want[2], test.want[3], test.want[4])
		if _, out := mustRun(t, o); out != want {
			t.Errorf("%+v:\n%swant\n%s", test, out, want)
		}
	}
}

func TestR08TheGroupsOfAProcessIncludeItsOwn(t *testing.T) {
	root := busybox(t)
	writeAccounts(t, root, "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n",
		"root:x:0:\nadm:x:4:user,other\nuser:x:1001:\nmore:x:50:user\nnumbers:x:60:\n")
	for _, test := range []struct {
		user   string
		groups []string
		want   string
	}{
		{"", nil, "0 0 0"}, {"user", nil, "1000 1001 1001 4 50"}, {"1000", nil, "1000 1001 1001 4 50"},
		{"user:more", nil, "1000 50 50"}, {"user:77", nil, "1000 77 77"}, {"1234", nil, "1234 0 0"},
		{"1234:5678", nil, "1234 5678 5678"}, {"user", []string{"numbers", "99"}, "1000 1001 1001 4 50 60 99"},
	} {
		o := sandbox.SpecOptions{Root: root, Process: sh("echo $(id -u) $(id -g) $(id -G)")}
		o.Process.User = test.user
		_, out := mustRun(t, o, func(c *sandbox.Config) { c.Groups = test.groups })
		if out != test.want+"\n" {
			t.Errorf("user %q, groups %v: %q, want %q", test.user, test.groups, out, test.want)
		}
	}
}

func writeAccounts(t *testing.T, root, passwd, group string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/group"), []byte(group), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestR09ANumericUserIsANumber(t *testing.T) {
	root := busybox(t)
	writeAccounts(t, root, "1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n", "1000:x:0:\n")
	o := sandbox.SpecOptions{Root: root, Process: sh("id -u; id -g")}
	o.Process.User = "1000:1000"
	if _, out := mustRun(t, o); out != "1000\n1000\n" {
		t.Errorf("user 1000 became %q", out)
	}
	for _, user := range []string{"4294967296", "-1", "2147483648", "99999999999999999999", "0:4294967296", "1000:-1", "nobody-knows"} {
		o.Process.User = user
		if exit, out, err := run(t, o); err == nil {
			t.Errorf("user %q: code %d, %q", user, exit.Code, out)
		}
	}
}

func TestR10HostileAccountFilesAreRefusedAtOnce(t *testing.T) {
	huge := func(path string) error {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, 10<<30)
	}
	long := func(path string) error {
		return os.WriteFile(path, []byte("g:x:5:"+strings.Repeat("a,", 10<<20)+"\n"), 0o644)
	}
	secret := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(secret, []byte("evil:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"etc/passwd", "etc/group"} {
		for name, make := range map[string]func(string) error{
			"fifo":   func(p string) error { return unix.Mkfifo(p, 0o644) },
			"device": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) },
			"huge":   huge, "long": long,
			"link":      func(p string) error { return os.Symlink(secret, p) },
			"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		} {
			t.Run(strings.ReplaceAll(file, "/", "_")+"_"+name, func(t *testing.T) {
				root := busybox(t)
				writeAccounts(t, root, "evil:x:7:7::/:/bin/sh\n", "evil:x:7:\n")
				at := filepath.Join(root, file)
				if err := os.Remove(at); err != nil {
					t.Fatal(err)
				}
				if err := make(at); err != nil {
					t.Fatal(err)
				}
				o := sandbox.SpecOptions{Root: root, Process: sh("id -u")}
				o.Process.User = "evil"
				began := time.Now()
				_, out, err := run(t, o)
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %v", took)
				}
				if err == nil && !(name == "link" && file == "etc/group") {
					t.Errorf("started, and is user %q", out)
				}
				t.Log(err)
			})
		}
	}
}

func TestR11MaskedAndReadOnlyPathsAreMobysAndMore(t *testing.T) {
	spec, err := sandbox.NewSpec(sandbox.SpecOptions{ID: "x", Root: "/", Process: sh("true")})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	} {
		if !slices.Contains(spec.Linux.MaskedPaths, p) {
			t.Errorf("%s is not masked", p)
		}
	}
	for _, p := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		if !slices.Contains(spec.Linux.ReadonlyPaths, p) {
			t.Errorf("%s is not read-only", p)
		}
	}
	root := busybox(t)
	_, out := mustRun(t, sandbox.SpecOptions{Root: root, Process: sh(
		"wc -c < /proc/keys; ls /sys/firmware; echo x > /proc/sys/kernel/core_pattern; echo x > /sys/fs/cgroup/x")})
	if !strings.HasPrefix(out, "0\n") || strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("got %q", out)
	}
}

func TestR13ControlGroupsAreReadOnly(t *testing.T) {
	root := busybox(t)
	_, out := mustRun(t, sandbox.SpecOptions{Root: root, Process: sh("grep cgroup /proc/mounts | grep -v 'ro,' ; cat /proc/self/cgroup")})
	if strings.Contains(out, "cgroup rw") || strings.Contains(out, "shale-") {
		t.Errorf("got %q", out)
	}
}

func TestR18OnlyTheUsualDevicesCanBeOpened(t *testing.T) {
	root := busybox(t)
	_, out := mustRun(t, sandbox.SpecOptions{Root: root, Process: sh(
		"mknod /tmp/disk b 8 0; cat /tmp/disk; mknod /tmp/mem c 1 1; cat /tmp/mem; mknod /tmp/null c 1 3; cat /tmp/null && echo null")})
	if strings.Count(out, "Operation not permitted") != 2 || !strings.Contains(out, "null\n") {
		t.Errorf("got %q", out)
	}
}

func TestASandboxHasNamespacesOfItsOwn(t *testing.T) {
	root := busybox(t)
	_, out := mustRun(t, sandbox.SpecOptions{Root: root, Hostname: "inside", Process: sh(
		"for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; hostname; echo $$; env")})
	for _, n := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, own) {
			t.Errorf("%s is the host's", own)
		}
	}
	if !strings.Contains(out, "\ninside\n1\n") {
		t.Errorf("got %q", out)
	}
}

func TestTerminalIsOneForTheProcess(t *testing.T) {
	root := busybox(t)
	o := sandbox.SpecOptions{Root: root, Process: sh("stty size; read line; echo got $line; test -t 0 && test -t 1 && test -t 2 && echo tty")}
	o.Process.Terminal, o.Process.Width, o.Process.Height = true, 101, 33
	code, out := mustRun(t, o, func(c *sandbox.Config) { c.Stdin = strings.NewReader("typed\n") })
	if code != 0 || out != "typed\r\n33 101\r\ngot typed\r\ntty\r\n" && out != "33 101\r\ntyped\r\ngot typed\r\ntty\r\n" {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestSignalsReachTheProcess(t *testing.T) {
	root := busybox(t)
	spec, err := sandbox.NewSpec(sandbox.SpecOptions{ID: "signals", Root: root, Process: sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s, err := sandbox.Start(t.Context(), sandbox.Config{ID: "signals", Dir: t.TempDir(), Spec: spec, Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Delete()
	if _, err := r.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestMemoryLimitIsSeenAsOOM(t *testing.T) {
	root := busybox(t)
	limit := int64(16 << 20)
	exit, out, err := run(t, sandbox.SpecOptions{
		Root: root, Process: sh("dd if=/dev/zero of=/dev/null bs=64M count=1"),
		Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}},
	})
	if err != nil || !exit.OOM {
		t.Errorf("%+v, %q, %v", exit, out, err)
	}
}

func TestRlimitsAboveTheHardOneAreClamped(t *testing.T) {
	root := busybox(t)
	o := sandbox.SpecOptions{Root: root, Process: sh("ulimit -Hn")}
	o.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 60, Hard: 1 << 60}}
	if code, out := mustRun(t, o); code != 0 || out == "" {
		t.Errorf("code %d, %q", code, out)
	}
}
