package main_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/registry/s3/s3test"
)

// binary is shale as `make build` makes it; the scripts run nothing else.
var binary string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

// When the tests run as another user, they are told what to test, and whether
// that user can run containers.
const (
	binaryEnv     = "SHALE_TEST_BINARY"
	containersEnv = "SHALE_TEST_CONTAINERS"
)

func runTests(m *testing.M) int {
	// A test that starts this program again, as another user, has built it.
	if binary = os.Getenv(binaryEnv); binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "shale-script-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Ordinary users run the binary too.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "shale")
	build := exec.Command("make", "-s", "-C", "../..", "build", "OUT="+binary)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "make build:", err)
		return 1
	}
	code := m.Run()
	if err := network.Machine().Prune(); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs each command as a user types it, in a store of its own.
//
// Beside testscript's own commands a script has
//
//	busybox NAME            imports an image of the static busybox
//	registry                serves a registry of its own; its address is $REGISTRY
//	free-port VAR           puts a port that nobody listens on into VAR
//	fails CODE ARG...       runs shale, which has to end with that code and one line of error
//	interrupt CODE WORD ARG...  runs shale, sends a SIGINT when it has said WORD, and wants that exit code
//	terminate CODE WORD ARG...  the same with a SIGTERM
//	whole                   checks that the store is whole and that gc leaves nothing behind
//	small-disk DIR SIZE     mounts a tmpfs of that size (as mount(8) takes it) at DIR
//	archive FILE MEMBER...  writes a tar, see [writeArchive]; cut and spoil do harm to a file
//	hostile-registry        serves what goes wrong; its address is $HOSTILE, see [hostileRegistry]
//	exitcode N ARG...       runs shale and wants that exit code
//	logged NAME TEXT        waits until a container's log has TEXT
//	answers URL TEXT        waits until URL answers, and wants TEXT in it
//	eventually ARG...       runs shale until it succeeds
//	s3                      starts a real S3 server with a bucket called cache: $S3 is its URL, $S3_KEY and
//	                        $S3_SECRET its credentials, $S3_DIR where its objects are, as files
//
// and the conditions [root], [erofs], [userns], [s3], [binfmt], a list of
// emulators for each user namespace, and [containers], which says that the
// user of the scripts can run containers here as root can.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: false,
		Setup:               setup,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"busybox":   busyboxImage,
			"registry":  serveRegistry,
			"free-port": freePort,
			"exitcode":  exitCode,
			"logged":    logged,
			"answers":   answers,

			"eventually": untilSucceeds,
			"s3":         startS3,
			"shale":      shale,
			"fails":      fails,
			"whole":      whole,
			"interrupt":  signalled(syscall.SIGINT),
			"terminate":  signalled(syscall.SIGTERM),

			"hostile-registry": hostileRegistry,
			"small-disk":       smallDisk,
			"archive":          writeArchive,
			"cut":              cutFile,
			"spoil":            spoil,
		},
	})
}

func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("SHALE_ROOT", filepath.Join(env.WorkDir, "store"))
	env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Defer(func() {
		// A script that fails half-way leaves its containers to us.
		list := command(env.Getenv, "ps", "-aq")
		ids, err := list.Output()
		if err != nil || len(bytes.Fields(ids)) == 0 {
			return
		}
		_ = command(env.Getenv, append([]string{"rm", "-f"}, strings.Fields(string(ids))...)...).Run()
	})
	return nil
}

// command is shale with the environment of a script.
func command(getenv func(string) string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	for _, name := range []string{"HOME", "SHALE_ROOT", "PATH", "TMPDIR", "XDG_DATA_HOME", "DOCKER_CONFIG"} {
		if v := getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "erofs":
		list, err := os.ReadFile("/proc/filesystems")
		return os.Geteuid() == 0 && bytes.Contains(list, []byte("\terofs\n")), err
	case "s3":
		_, err := s3test.Program()
		return err == nil, nil
	case "containers":
		return os.Geteuid() == 0 || os.Getenv(containersEnv) != "", nil
	case "userns":
		cmd := exec.Command("true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		return cmd.Run() == nil, nil
	case "binfmt":
		return exec.Command("unshare", "-Urm", "mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc").Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// shale runs the binary; `! shale …` wants a failure.
func shale(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(binary, args...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("shale %s: %v", strings.Join(args, " "), err)
	case err == nil && neg:
		ts.Fatalf("shale %s: succeeded, but was to fail", strings.Join(args, " "))
	}
}

// fails runs shale, which has to end with the exit code args[0] and to tell
// why in one line.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE ARG...")
	}
	err := ts.Exec(binary, args[1:]...)
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code is %d (%v), want %s", code, err, args[0])
	}
	told := 0
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if strings.HasPrefix(line, "shale: ") {
			told++
		}
	}
	if told != 1 {
		ts.Fatalf("%d lines of error, want one", told)
	}
}

// interrupt runs shale until it has said args[1], interrupts it as Ctrl-C does,
// and wants it to end with the exit code args[0] before long.
func interrupt(ts *testscript.TestScript, signal syscall.Signal, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt|terminate CODE WORD ARG...")
	}
	cmd := command(ts.Getenv, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	cmd.Stderr = cmd.Stdout
	ts.Check(cmd.Start())
	late := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	var said []byte
	buf := make([]byte, 4096)
	for sent := false; ; {
		n, err := out.Read(buf)
		said = append(said, buf[:n]...)
		if !sent && bytes.Contains(said, []byte(args[1])) {
			sent = true
			ts.Check(syscall.Kill(-cmd.Process.Pid, signal))
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	ts.Logf("%s", said)
	if code := cmd.ProcessState.ExitCode(); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code is %d, want %s", code, args[0])
	}
}

func signalled(signal syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) { interrupt(ts, signal, neg, args) }
}

// whole checks that the store lost nothing, and that after a collection no
// temporary file, lease or mount is left.
func whole(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: whole")
	}
	ts.Check(ts.Exec(binary, "fsck", "--deep"))
	ts.Check(ts.Exec(binary, "gc"))
	ts.Check(ts.Exec(binary, "fsck", "--deep"))
	root := ts.Getenv("SHALE_ROOT")
	for _, dir := range []string{"tmp", "leases"} {
		left, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		for _, entry := range left {
			ts.Fatalf("left behind: %s", filepath.Join(dir, entry.Name()))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	ts.Check(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			ts.Fatalf("left mounted: %s", line)
		}
	}
}

// busyboxImage imports Debian's static busybox, with a link for each applet
// that the scripts use, under the name args[0].
func busyboxImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: busybox NAME")
	}
	file := ts.MkAbs("busybox.tar")
	ts.Check(writeBusybox(file))
	defer os.Remove(file)
	ts.Check(ts.Exec(binary, "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", file, args[0]))
}

func writeBusybox(file string) error {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("read busybox (Debian: busybox-static): %w", err)
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	epoch := time.Unix(1_700_000_000, 0)
	add := func(h *tar.Header, content []byte) {
		h.ModTime, h.Size = epoch, int64(len(content))
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = w.Write(content)
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte(passwd))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n"))
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// serveRegistry starts `shale registry serve` over a store of its own and
// waits until it answers.
func serveRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: registry")
	}
	addr := unusedAddress(ts)
	server := command(ts.Getenv, "registry", "serve", "--addr", addr, "--root", ts.MkAbs("registry"))
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	ts.Check(server.Start())
	ts.Defer(func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			ts.Fatalf("registry does not answer: %v\n%s", err, log.String())
		}
	}
	ts.Setenv("REGISTRY", addr)
}

func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: free-port VAR")
	}
	_, port, err := net.SplitHostPort(unusedAddress(ts))
	ts.Check(err)
	ts.Setenv(args[0], port)
}

func unusedAddress(ts *testscript.TestScript) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	return l.Addr().String()
}

// exitCode runs the binary and wants the exit code args[0].
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N ARG...")
	}
	code := 0
	if err := ts.Exec(binary, args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("shale %s: %v", strings.Join(args[1:], " "), err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("shale %s: exit code %d, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// logged waits until the log of the container args[0] has the text args[1].
func logged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: logged NAME TEXT")
	}
	logs := command(ts.Getenv, "logs", "-f", args[0])
	out, err := logs.StdoutPipe()
	ts.Check(err)
	ts.Check(logs.Start())
	defer func() {
		_ = logs.Process.Kill()
		_ = logs.Wait()
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), args[1]) {
			return
		}
	}
	ts.Fatalf("%s ended and did not log %q", args[0], args[1])
}

// answers waits until the URL args[0] answers and wants args[1] in what it
// says: a server that has just been started may not listen yet.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: answers URL TEXT")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		response, err := http.Get(args[0])
		if err != nil {
			if time.Now().After(deadline) {
				ts.Fatalf("%v", err)
			}
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		ts.Check(err)
		if !strings.Contains(string(body), args[1]) {
			ts.Fatalf("%s answers %s, %q", args[0], response.Status, body)
		}
		return
	}
}

// untilSucceeds runs the binary until it succeeds, for ten seconds at most.
func untilSucceeds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually ARG...")
	}
	for deadline := time.Now().Add(10 * time.Second); ts.Exec(binary, args...) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("shale %s: goes on to fail", strings.Join(args, " "))
		}
	}
}

// startS3 starts an S3 server for the time of the script.
func startS3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: s3")
	}
	s, err := s3test.Start(ts.MkAbs("s3"))
	ts.Check(err)
	ts.Defer(s.Close)
	ts.Setenv("S3", s.URL)
	ts.Setenv("S3_KEY", s.Keys.KeyID)
	ts.Setenv("S3_SECRET", s.Keys.Secret)
	ts.Setenv("S3_DIR", s.Dir)
}
