package main_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/sys"
)

// ordinary is the uid and gid of a user who is made up for the test.
const ordinary = 54321

// lent are lines of /etc/subuid and /etc/subgid.
const lent = "ordinary:200000:65536\n"

// TestAnOrdinaryUserBuildsAndRuns lives the life of an image as a user without
// rights: with ids of /etc/subuid and with a single id, and connected by pasta
// and by the stack that is linked in.
func TestAnOrdinaryUserBuildsAndRuns(t *testing.T) {
	for name, how := range map[string]struct {
		lent string
		tun  bool
	}{
		"one id":             {"", false},
		"ids lent":           {lent, false},
		"ids lent and pasta": {lent, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, how.lent)
			if how.tun {
				u.needPasta(t)
			}
			u.be(t, func() { u.live(t) })
			u.leavesNothing(t)
		})
	}
}

// TestScriptsAsAnOrdinaryUser runs the scripts once more as somebody else: as a
// user who can run containers, and as one to whom user namespaces are
// forbidden. Such a user can still do all that runs no program, builds included.
func TestScriptsAsAnOrdinaryUser(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]struct {
		args []string
		env  string
	}{
		"with user namespaces": {nil, containersEnv + "=1"},
		"without":              {withoutNamespaces(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, lent)
			// Where the tests are, the user may have no way to.
			u.copyFile(t, self, "scripts.test")
			if err := os.CopyFS(u.path("testdata"), os.DirFS("testdata")); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Mkdir(u.path("tmp"), 0o777), os.Chmod(u.path("tmp"), 0o777)); err != nil {
				t.Fatal(err)
			}
			u.be(t, func() {
				args := append(how.args, u.path("scripts.test"), "-test.run", "^TestScripts$", "-test.parallel", "2")
				cmd := u.command(args[0], args[1:]...)
				cmd.Env = append(cmd.Env, "TMPDIR="+u.path("tmp"), binaryEnv+"="+binary, how.env)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
			u.leavesNothing(t)
		})
	}
}

// TestAReproducibleBuildIsTheSameWithoutRoot builds as root and as an ordinary
// user, with ids of /etc/subuid and with a single id. The manifests are one.
func TestAReproducibleBuildIsTheSameWithoutRoot(t *testing.T) {
	const dockerfile = `FROM scratch
ADD busybox.tar /
ENV PATH=/bin
RUN mkdir -p /made/dir && echo made > /made/file && ln /made/file /made/link && chmod 2711 /made/dir && rm /etc/passwd && chmod 711 /
COPY --chmod=4750 Dockerfile /copied/
RUN --network=none --mount=type=bind,target=/ctx cp -p /ctx/Dockerfile /made/own
`
	digests := map[string]string{}
	for name, lent := range map[string]string{"one id": "", "ids lent": lent} {
		u := newUser(t, lent)
		file := u.path("context/Dockerfile")
		u.copyFile(t, u.path("busybox.tar"), "context/busybox.tar")
		if err := errors.Join(os.WriteFile(file, []byte(dockerfile), 0o644), os.Chmod(file, 0o644)); err != nil {
			t.Fatal(err)
		}
		args := []string{"build", "--reproducible", "--sbom", "--provenance", "--metadata-file", u.path("metadata"), "-q", u.path("context")}
		u.be(t, func() { u.shale(t, args...) })
		digests[name] = manifestOf(t, u.path("metadata"))
		asRoot := exec.Command(binary, args...)
		asRoot.Env = append(os.Environ(), "SHALE_ROOT="+t.TempDir(), "HOME="+u.home)
		if out, err := asRoot.CombinedOutput(); err != nil {
			t.Fatalf("as root: %v\n%s", err, out)
		}
		digests["root"] = manifestOf(t, u.path("metadata"))
		u.leavesNothing(t)
	}
	for name, d := range digests {
		if d != digests["root"] {
			t.Errorf("%s makes %s, root %s", name, d, digests["root"])
		}
	}
}

// TestABuildWithOneIDKeepsOwnersOrSaysWhatIsMissing builds on files of others as a
// user without ids of /etc/subuid. What is only changed keeps its owner; what
// would take another id tells how to come by one.
func TestABuildWithOneIDKeepsOwnersOrSaysWhatIsMissing(t *testing.T) {
	const base = "FROM scratch\nADD busybox.tar /\nENV PATH=/bin\nCOPY --chown=5:6 file /data/file\nCOPY --chown=5:6 file /data/mode\n"
	const advice = "apt-get install uidmap"
	u := newUser(t, "")
	u.copyFile(t, u.path("busybox.tar"), "context/busybox.tar")
	build := func(steps string) (output string, code int) {
		if err := os.WriteFile(u.path("context/Dockerfile"), []byte(base+steps), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := u.command(binary, "build", "--network", "none", "-o", "type=tar,dest=out.tar", "context")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	u.be(t, func() {
		out, code := build("RUN touch /data/new && echo more >> /data/file && chmod 600 /data/mode && chmod 711 /\n")
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		got := ownersIn(t, u.path("out.tar"))
		for name, owner := range map[string]string{"data/": "5:6", "data/file": "5:6", "data/mode": "5:6", "data/new": "0:0"} {
			if got[name] != owner {
				t.Errorf("%s belongs to %s, want %s", name, got[name], owner)
			}
		}
		for _, steps := range []string{"RUN chown 5:6 /bin\n", "USER 5\nRUN true\n", "RUN echo a:x:5:6::: > /etc/passwd; su a -c true\n"} {
			if out, code := build(steps); code != 1 || !strings.Contains(out, advice) {
				t.Errorf("%s: exit code %d\n%s", steps, code, out)
			}
		}
		if out, code := build("RUN false\n"); code != 1 || strings.Contains(out, advice) {
			t.Errorf("a program that fails for another reason: exit code %d\n%s", code, out)
		}
	})
	u.leavesNothing(t)
}

// ownersIn lists the owners of files in a tar.
func ownersIn(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	owners := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return owners
		}
		if err != nil {
			t.Fatal(err)
		}
		owners[h.Name] = fmt.Sprintf("%d:%d", h.Uid, h.Gid)
	}
}

// manifestOf reads what a build has said about the image.
func manifestOf(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(data, &m); err != nil || m.Digest == "" {
		t.Fatalf("%v: %s", err, data)
	}
	return m.Digest
}

// withoutNamespaces is how a command is run that can make no user namespace, and
// so no other either. The limit is that of a namespace, not of the machine:
// namespaces(7).
func withoutNamespaces() []string {
	const forbidden = "echo 0 > /proc/sys/user/max_user_namespaces && ! unshare --user true 2> /dev/null &&" +
		` exec setpriv --ambient-caps=-all --inh-caps=-all "$0" "$@"`
	return []string{"unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", forbidden}
}

// user is an ordinary user with a home of their own.
type user struct {
	home   string
	mounts []sys.Mount // make /etc know them
	pasta  bool        // connects their containers
}

// newUser makes up a user; lent is their line in /etc/subuid.
func newUser(t *testing.T, lent string) *user {
	t.Helper()
	if os.Geteuid() != 0 || sys.InUserNamespace() {
		t.Skip("only root can become another user")
	}
	if ok, err := condition("userns"); !ok || err != nil {
		t.Skip("no user namespaces:", err)
	}
	if _, err := exec.LookPath("newuidmap"); err != nil && lent != "" {
		t.Skip(err)
	}
	home, err := os.MkdirTemp("", "shale-ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.MkdirAll(filepath.Join(home, "context"), 0o755); err != nil {
		t.Fatal(err)
	}
	u := &user{home: home}
	if err := writeBusybox(u.path("busybox.tar")); err != nil {
		t.Skip(err)
	}
	for name, content := range map[string]string{
		"context/Dockerfile": "FROM box\nRUN ip route | grep -q default\nRUN echo made > /made && chmod 4711 /made\nCOPY file /file\n",
		"context/file":       "copied\n",
		"context/failing":    "FROM box\nWORKDIR /d\nRUN touch old\nRUN rm old /etc/group && mkdir new && echo left > new/x && exit 3\n",
		"passwd":             fmt.Sprintf("root:x:0:0::/:/bin/sh\nordinary:x:%d:%d::/:/bin/sh\n", ordinary, ordinary),
		"subuid":             lent,
		"subgid":             lent,
	} {
		if err := os.WriteFile(u.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"passwd", "subuid", "subgid"} {
		u.mounts = append(u.mounts, sys.Mount{Source: u.path(name), Target: "/etc/" + name, Flags: sys.Bind})
	}
	if err := os.Chown(home, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *user) path(name string) string { return filepath.Join(u.home, name) }

// be runs f where /etc knows the user.
func (u *user) be(t *testing.T, f func()) {
	t.Helper()
	err := sys.PrivateMounts(func() error {
		if err := sys.MountAll(u.mounts); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Skip(err)
	}
}

// needPasta lets the user open the device that pasta needs, as most machines
// do.
func (u *user) needPasta(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("pasta"); err != nil {
		t.Skip(err)
	}
	const misc, tun = 10, 200 // Documentation/admin-guide/devices.txt
	if err := syscall.Mknod(u.path("tun"), syscall.S_IFCHR, misc<<8|tun); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(u.path("tun"), 0o666); err != nil {
		t.Fatal(err)
	}
	u.mounts = append(u.mounts, sys.Mount{Source: u.path("tun"), Target: "/dev/net/tun", Flags: sys.Bind})
	u.pasta = true
}

func (u *user) copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(u.path(to), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// command is a command of the user's.
func (u *user) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = u.home
	cmd.Env = []string{"HOME=" + u.home, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	return cmd
}

// shale runs shale as the user and returns what it prints.
func (u *user) shale(t *testing.T, args ...string) string {
	t.Helper()
	cmd := u.command(binary, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("shale %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// refused runs shale, which is to fail with that code, and returns what it prints.
func (u *user) refused(t *testing.T, code int, args ...string) string {
	t.Helper()
	cmd := u.command(binary, args...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("shale %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

func (u *user) live(t *testing.T) {
	t.Helper()
	expect := func(want string, args ...string) {
		t.Helper()
		if got := u.shale(t, args...); !strings.Contains(got, want) {
			t.Errorf("shale %s: got %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	expect("overlay", "info")
	network := map[bool]string{true: "pasta\n", false: "netstack\n"}[u.pasta]
	expect(network, "info", "-f", "{{.Network}}")
	expect("sha256:", "import", "-c", "ENV PATH=/bin", "busybox.tar", "box")
	expect("0\n", "run", "--rm", "--network", "none", "box", "id", "-u")
	if got := u.refused(t, 127, "run", "--rm", "--network", "none", "box", "nosuch"); strings.Count(got, "\n") != 1 {
		t.Errorf("a command that is missing takes more than one line: %s", got)
	}
	expect("sha256:", "build", "-q", "-t", "app", "context")
	expect("made\ncopied\n", "run", "--rm", "--network", "host", "app", "cat", "/made", "/file")
	u.refused(t, 1, "build", "--network", "none", "-f", "context/failing", "context")
	expect("/d\nleft\nnew\n", "debug", "--", "sh", "-c", "pwd; cat new/x; ls; rm -r new; test ! -e /etc/group")
	expect("left\n", "debug", "--", "cat", "new/x")
	u.shale(t, "run", "-d", "--network", "none", "--name", "here", "app", "sh", "-c", "echo mine > /own; sleep 1000")
	// Each command is a process of its own, and finds the way to the container.
	expect("mine\n", "exec", "here", "sh", "-c", "until cat /own; do :; done")
	expect("here", "ps")
	expect("here", "stop", "-t", "0", "here")
	expect("here", "start", "here")
	expect("mine\n", "exec", "here", "cat", "/own")
	expect("here", "rm", "-f", "here")
	u.connect(t)
	expect("app", "rmi", "app")
	expect("reclaimed", "system", "prune", "-af")
	expect("whole", "fsck", "--deep")
	expect("", "gc")
	if got := u.shale(t, "ps", "-aq"); got != "" {
		t.Errorf("containers are left: %s", got)
	}
}

// connect lets the machine and a container call each other.
func (u *user) connect(t *testing.T) {
	t.Helper()
	u.shale(t, "run", "-d", "--name", "web", "-p", "127.0.0.1::80", "app", "sh", "-c", "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www")
	address := strings.TrimSpace(u.shale(t, "port", "web", "80"))
	u.shale(t, "exec", "web", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1; do :; done")
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + address)
	if err != nil {
		t.Error(err)
	} else {
		page, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(page) != "page\n" {
			t.Errorf("container says %q, %v", page, err)
		}
	}
	u.shale(t, "rm", "-f", "web")
}

// leavesNothing looks for mounts and processes.
func (u *user) leavesNothing(t *testing.T) {
	t.Helper()
	if used, err := sys.Mounted(u.home); err != nil || used {
		t.Errorf("something is mounted: %t, %v", used, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		var st syscall.Stat_t
		if syscall.Stat(p, &st) != nil || st.Uid != ordinary {
			continue
		}
		// Of one that has ended and only waits for init there is no command line.
		// Another test may have the same user: it has another home.
		line, err := os.ReadFile(p + "/cmdline")
		if err == nil && len(line) > 0 && u.mentioned(line, p+"/environ", p+"/mountinfo") {
			t.Errorf("a process is left: %q", line)
		}
	}
}

// mentioned tells whether line or one of the files names the user's home.
func (u *user) mentioned(line []byte, files ...string) bool {
	for _, file := range files {
		data, _ := os.ReadFile(file) // it may have ended by now
		line = append(line, data...)
	}
	return bytes.Contains(line, []byte(u.home))
}
