package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/sys"
)

// gitCommand runs git in a directory of its own, with no configuration but
// ours: no hooks, no filters, no helpers, and no way to reach this machine's
// files through a URL.
type gitCommand struct {
	program string
	dir     string
	env     []string
	config  *os.File // in memory: it may hold credentials
}

// gitConfig is what git is told in every call.
const gitConfig = `[core]
	hooksPath = /dev/null
	fsmonitor = false
	symlinks = true
	autocrlf = false
	protectHFS = true
	protectNTFS = true
[protocol]
	allow = never
[protocol "https"]
	allow = always
[protocol "http"]
	allow = always
[protocol "ssh"]
	allow = always
[protocol "git"]
	allow = always
[fetch]
	fsckObjects = true
[submodule]
	recurse = false
[advice]
	detachedHead = false
[gc]
	auto = 0
[credential]
	helper =
[safe]
	directory = *
`

// configFD is the descriptor under which git finds its configuration.
const configFD = "/proc/self/fd/3"

func (op *git) command(dir string) (*gitCommand, error) {
	program, err := osexec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("%w (Debian: apt-get install git): %w", errNoGit, errdefs.ErrNotImplemented)
	}
	g := &gitCommand{program: program, dir: filepath.Join(dir, "checkout")}
	home := filepath.Join(dir, "home")
	for _, d := range []string{g.dir, home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	config := gitConfig + op.credentials()
	if g.config, err = sys.MemoryFile("gitconfig", []byte(config)); err != nil {
		return nil, err
	}
	g.env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + configFD, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false",
		"GIT_CEILING_DIRECTORIES=" + dir,
	}
	return g, g.ssh(op, dir)
}

// ssh lets git use the agent of --ssh, and only hosts whose keys are known.
func (g *gitCommand) ssh(op *git, dir string) error {
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(op.attrs[pb.AttrKnownSSHHosts]), 0o600); err != nil {
		return err
	}
	g.env = append(g.env, "GIT_SSH_COMMAND=ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile="+known)
	if socket, ok := op.tools.Runner.Sockets[op.attrs[pb.AttrMountSSHSock]]; ok {
		g.env = append(g.env, "SSH_AUTH_SOCK="+socket)
	}
	return nil
}

func (g *gitCommand) close() { g.config.Close() }

// shallow is the flag that fetches one commit without its history.
const shallow = "--depth=1"

// run runs git and returns its answer without the last newline. An error is
// git's last word. A server that only hands out files knows no [shallow]
// fetches: from there everything is fetched.
//
// git talks to servers through programs that outlive it and have its output
// open. They are a group, which ends as one.
func (g *gitCommand) run(ctx context.Context, args ...string) (string, error) {
	cmd := osexec.CommandContext(ctx, g.program, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = g.dir, g.env, []*os.File{g.config}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	var said ending
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		if i := slices.Index(args, shallow); i >= 0 && strings.Contains(string(said), "shallow") {
			return g.run(ctx, slices.Delete(slices.Clone(args), i, i+1)...)
		}
		if errors.As(err, new(*osexec.ExitError)) {
			err = errors.New(lastLine(string(said)))
		}
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// ending keeps the end of what is written to it: a server can make git say
// anything, for as long as it likes.
type ending []byte

// maxEnding is how much an ending has at least, in bytes, if there was as much.
const maxEnding = 16 << 10

func (e *ending) Write(p []byte) (int, error) {
	*e = append(*e, p[max(0, len(p)-maxEnding):]...)
	if len(*e) > 4*maxEnding {
		*e = append((*e)[:0], (*e)[len(*e)-maxEnding:]...)
	}
	return len(p), nil
}

// lastLine is the last line of what git said, without "fatal:".
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	s = s[strings.LastIndexByte(s, '\n')+1:]
	return strings.TrimPrefix(s, "fatal: ")
}
