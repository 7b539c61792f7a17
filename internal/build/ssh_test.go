package build_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshAgent starts OpenSSH's agent with a key, whose comment is comment, and
// returns its socket and the key.
func sshAgent(t *testing.T, comment string) (socket string, key ssh.PublicKey) {
	t.Helper()
	file, key := sshKey(t, comment, "")
	socket = filepath.Join(filepath.Dir(file), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		add := exec.Command("ssh-add", "-q", file)
		add.Env = []string{"SSH_AUTH_SOCK=" + socket}
		out, err := add.CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ssh-add: %v\n%s", err, out)
		}
	}
	if err := os.Remove(file); err != nil { // the agent alone has it now
		t.Fatal(err)
	}
	return socket, key
}

// sshKey makes a private key.
func sshKey(t *testing.T, comment, passphrase string) (file string, key ssh.PublicKey) {
	t.Helper()
	for _, tool := range []string{"ssh", "ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no OpenSSH client (Debian: openssh-client):", err)
		}
	}
	file = filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(read(t, file+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	return file, key
}

// sshServer serves git below root to the user git with that key, and returns
// its address.
func sshServer(t *testing.T, root string, key ssh.PublicKey) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "git" || !bytes.Equal(offered.Marshal(), key.Marshal()) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(conn, config, root)
		}
	}()
	return l.Addr().String()
}

func serveSSH(conn net.Conn, config *ssh.ServerConfig, root string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go serveGit(channel, requests, root)
	}
}

// serveGit runs git-upload-pack for a path below root, and nothing else.
func serveGit(channel ssh.Channel, requests <-chan *ssh.Request, root string) {
	defer channel.Close()
	for r := range requests {
		var command struct{ Line string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &command) != nil {
			_ = r.Reply(r.Type == "env", nil)
			continue
		}
		path, ok := strings.CutPrefix(command.Line, "git-upload-pack '")
		_ = r.Reply(ok, nil)
		if !ok {
			return
		}
		git := exec.Command("git", "-c", "safe.directory=*", "upload-pack", filepath.Join(root, strings.TrimSuffix(path, "'")))
		git.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + root, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
		git.Stdout, git.Stderr = channel, channel.Stderr()
		in, err := git.StdinPipe()
		if err != nil || git.Start() != nil {
			return
		}
		go func() { _, _ = io.Copy(in, channel); in.Close() }()
		status := struct{ Code uint32 }{}
		if git.Wait() != nil {
			status.Code = 1
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}

// git asks through the user's agent, and only if the user has lent it.
func TestARepositoryIsReadThroughTheUsersAgent(t *testing.T) {
	_, repo := repository(t, map[string]string{"a": "a\n"})
	socket, key := sshAgent(t, "k3y-c0mm3nt")
	address := sshServer(t, filepath.Dir(repo), key)
	b := newBench(t)
	text := "FROM scratch\nADD ssh://git@" + address + "/repo.git#v1 /r\n"
	if o := b.try(dockerfile(text)); o.err == nil {
		t.Error("it was read without an agent")
	}
	req := dockerfile(text)
	req.Run.Agents = map[string]string{"default": socket}
	equal(t, "tree", b.names(b.build(req).Image), []string{"r", "r/a"})
	other, _ := sshAgent(t, "other")
	req = dockerfile(text)
	req.Cache.Ignore = true
	req.Run.Agents = map[string]string{"default": other}
	if o := b.try(req); o.err == nil {
		t.Error("it was read with another key")
	}
}

// A RUN reaches the agent while it runs, and nothing of it stays.
func TestARunUsesTheUsersAgent(t *testing.T) {
	b := runs(t)
	socket, key := sshAgent(t, "k3y-c0mm3nt")
	ctx := directory(t, map[string]string{"Dockerfile": `FROM busybox
COPY root /
RUN --mount=type=ssh /ssh-add -L | cut -d' ' -f1,2 > /key
RUN test ! -e "${SSH_AUTH_SOCK:-/run/buildkit/ssh_agent.0}"
`})
	copyProgram(t, "ssh-add", filepath.Join(ctx, "root"))
	req := dir(ctx)
	req.Run.Agents = map[string]string{"default": socket}
	o := b.build(req)
	equal(t, "key", b.read(o.Image, "key"), string(ssh.MarshalAuthorizedKey(key)))
	if names := b.names(o.Image); slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "ssh_agent") }) {
		t.Errorf("the socket stays: %q", names)
	}
	nowhere(t, b.Store.Root(), "k3y-c0mm3nt")
	nowhere(t, b.Store.Root(), socket)
}

// Keys in files are lent for the time of the build, by an agent that signs and
// does nothing else.
func TestAKeyIsLentForTheBuild(t *testing.T) {
	b := runs(t)
	file, key := sshKey(t, "k3y-c0mm3nt", "")
	_, repo := repository(t, map[string]string{"a": "a\n"})
	address := sshServer(t, filepath.Dir(repo), key)
	ctx := directory(t, map[string]string{"Dockerfile": `FROM busybox
ADD ssh://git@` + address + `/repo.git /r
COPY root /
RUN --mount=type=ssh /ssh-add -L | cut -d' ' -f1,2 > /key; /ssh-add -D 2>/dev/null; /ssh-add -L | cut -d' ' -f1,2 >> /key; ls /tmp > /seen
`})
	copyProgram(t, "ssh-add", filepath.Join(ctx, "root"))
	req := dir(ctx)
	req.Run.Keys = map[string][]string{"default": {file}}
	o := b.build(req)
	equal(t, "keys", b.read(o.Image, "key"), strings.Repeat(string(ssh.MarshalAuthorizedKey(key)), 2))
	equal(t, "content", b.read(o.Image, "r/a"), "a\n")
	private := strings.Split(string(read(t, file)), "\n")
	nowhere(t, b.Store.Root(), private[2])

	locked, _ := sshKey(t, "locked", "s3cr3t")
	public := file + ".pub"
	for name, want := range map[string]string{locked: "has a passphrase", public: "is no private key", file + ".none": "no such file"} {
		req := dir(ctx)
		req.Run.Keys = map[string][]string{"default": {file, name}}
		if o := b.try(req); o.err == nil || !strings.Contains(o.err.Error(), want) {
			t.Errorf("error is %v, want one that says %q", o.err, want)
		}
	}
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// copyProgram copies a program of this machine to /name below root, with the
// libraries that it needs.
func copyProgram(t *testing.T, name, root string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	libraries, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skip("ldd:", err)
	}
	files := map[string]string{program: "/" + name}
	for _, m := range library.FindAllStringSubmatch(string(libraries), -1) {
		files[m[1]] = m[1]
	}
	for from, to := range files {
		to = filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, read(t, from), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
