package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// external is a process of an OCI runtime binary (runc, crun): "create" and
// "start" of the command line that all of them have.
//
// Its directory Dir/ID is the bundle; beside config.json lie the runtime's
// own state, the process's number and the runtime's path, by which Load, Exec
// and Clean know what they have before them.
type external struct {
	runtime string
	id      string
	dir     string // Dir/ID
	number  int
	started uint64
	// owner tells that the process is the sandbox's first.
	owner bool
}

// The files of a bundle.
const (
	bundleSpec    = "config.json"
	bundlePid     = "pid"
	bundleRuntime = "runtime"
	bundleState   = "state"
)

func startExternal(ctx context.Context, c Config) (_ *Sandbox, err error) {
	// The process that "create" leaves behind becomes our child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("start sandbox: become the parent of what a runtime leaves: %w", err)
	}
	e := &external{runtime: c.Runtime, id: c.ID, dir: filepath.Join(c.Dir, c.ID), owner: true}
	if err := os.MkdirAll(filepath.Join(e.dir, bundleState), 0o700); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	s := &Sandbox{process: e, done: make(chan struct{})}
	s.stdio, err = newStdio(streams{c.Stdin, c.Stdout, c.Stderr, c.Spec.Process.Terminal})
	if err == nil {
		s.hold, err = onHold(c.Mounts, func() error { return e.create(ctx, c, s.stdio) })
	}
	if err != nil {
		if s.stdio != nil {
			s.stdio.closeAll()
		}
		return nil, errors.Join(startError(c.Spec.Process.Args, err), os.RemoveAll(e.dir))
	}
	go s.watch()
	return s, nil
}

// create runs on the thread that holds the mounts.
func (e *external) create(ctx context.Context, c Config, io *stdio) (err error) {
	if err := setUser(c.Spec, c.Groups, c.Spec.Root.Path); err != nil {
		return err
	}
	spec, err := json.Marshal(c.Spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.dir, bundleSpec), spec, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.dir, bundleRuntime), []byte(e.runtime), 0o600); err != nil {
		return err
	}
	args := []string{"create", "--bundle", e.dir, "--pid-file", filepath.Join(e.dir, bundlePid)}
	console, err := e.console(io)
	if err != nil {
		return err
	}
	if console != nil {
		defer console.Close()
		args = append(args, "--console-socket", console.path)
	}
	cmd := e.command(ctx, append(args, e.id)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.child[0], io.child[1], io.child[2]
	// The runtime's own words go to a log: its standard error is the
	// process's.
	defer func() {
		if err != nil {
			_ = e.command(context.WithoutCancel(ctx), "delete", "--force", e.id).Run()
		}
	}()
	if err := e.run(cmd); err != nil {
		return err
	}
	if err := e.readPid(); err != nil {
		return err
	}
	if console != nil {
		if err := console.accept(io); err != nil {
			return err
		}
	}
	if c.Attach != nil {
		if err := c.Attach(e.number); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	io.start()
	return e.run(e.command(ctx, "start", e.id))
}

// command is the runtime with the options that every call has.
func (e *external) command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--root", filepath.Join(e.dir, bundleState), "--log", filepath.Join(e.dir, "log"), "--log-format", "json"}
	return exec.CommandContext(ctx, e.runtime, append(global, args...)...)
}

// run runs the runtime and gives its error the words from its log.
func (e *external) run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &out
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", e.runtime, err)
	}
	message := e.lastWords()
	if message == "" {
		message = strings.TrimSpace(out.String())
	}
	return fmt.Errorf("%s %s: %s", filepath.Base(e.runtime), cmd.Args[7], message)
}

// lastWords are the last error in the runtime's log.
func (e *external) lastWords() string {
	data, err := os.ReadFile(filepath.Join(e.dir, "log"))
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(data)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			last = entry.Msg
		}
	}
	return last
}

func (e *external) readPid() error {
	data, err := os.ReadFile(filepath.Join(e.dir, bundlePid))
	if err != nil {
		return err
	}
	if e.number, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
		return fmt.Errorf("read %s: %w", bundlePid, err)
	}
	e.started, err = startTime(e.number)
	return err
}

func (e *external) pid() int          { return e.number }
func (e *external) startTime() uint64 { return e.started }
func (e *external) oomKilled() bool   { return false }

func (e *external) wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(e.number, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", e.number, err)
		}
		return status, nil
	}
}

func (e *external) signal(sig unix.Signal, _ bool) error {
	// The first process of a process namespace takes the others along.
	if err := unix.Kill(e.number, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", e.number, err)
	}
	return nil
}

func (e *external) destroy() error {
	if !e.owner {
		return nil
	}
	if err := e.run(e.command(context.Background(), "delete", "--force", e.id)); err != nil {
		return err
	}
	return os.RemoveAll(e.dir)
}

// loadExternal returns what a runtime binary keeps in dir under id; nil if
// that is libcontainer's.
func loadExternal(dir, id string) (*external, error) {
	e := &external{id: id, dir: filepath.Join(dir, id)}
	runtime, err := os.ReadFile(filepath.Join(e.dir, bundleRuntime))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load sandbox %s: %w", id, err)
	}
	e.runtime, e.owner = string(runtime), true
	if err := e.readPid(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load sandbox %s: %w", id, err)
	}
	return e, nil
}

// exec starts one more process and takes its streams to s.
func (e *external) exec(ctx context.Context, p ExecProcess, s *stdio) (*external, error) {
	if !Alive(e.number, e.started) {
		return nil, because(errdefs.ErrFailedPrecondition, "execute in sandbox %s: not running", e.id)
	}
	dir, err := os.MkdirTemp(e.dir, "exec-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := setUser(&specs.Spec{Process: p.Process}, p.Groups, fmt.Sprintf("/proc/%d/root", e.number)); err != nil {
		return nil, err
	}
	process, err := json.Marshal(p.Process)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "process.json")
	if err := os.WriteFile(file, process, 0o600); err != nil {
		return nil, err
	}
	pidFile := filepath.Join(dir, bundlePid)
	args := []string{"exec", "--detach", "--process", file, "--pid-file", pidFile}
	console, err := e.console(s)
	if err != nil {
		return nil, err
	}
	if console != nil {
		defer console.Close()
		args = append(args, "--console-socket", console.path)
	}
	cmd := e.command(ctx, append(args, e.id)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.child[0], s.child[1], s.child[2]
	if err := e.run(cmd); err != nil {
		return nil, err
	}
	if console != nil {
		if err := console.accept(s); err != nil {
			return nil, err
		}
	}
	made := &external{runtime: e.runtime, id: e.id, dir: dir}
	return made, made.readPid()
}

// consoleSocket is where a runtime sends the terminal of a process
// (runc(8), --console-socket).
type consoleSocket struct {
	*net.UnixListener
	path string
	dir  string
}

func (e *external) console(s *stdio) (*consoleSocket, error) {
	if !s.terminal {
		return nil, nil
	}
	// Not in the bundle: the path of a socket has at most 107 bytes (unix(7)).
	dir, err := os.MkdirTemp("", "shale-tty-")
	if err != nil {
		return nil, err
	}
	c := &consoleSocket{path: filepath.Join(dir, "s"), dir: dir}
	c.UnixListener, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// consoleTimeout is how long a runtime may take to send a terminal after it
// said that the process is there.
const consoleTimeout = 10 * time.Second

// accept takes the terminal into s.
func (c *consoleSocket) accept(s *stdio) error {
	if err := c.SetDeadline(time.Now().Add(consoleTimeout)); err != nil {
		return err
	}
	conn, err := c.AcceptUnix()
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	_ = s.socket.Close()
	s.socket = file
	return s.receive()
}

func (c *consoleSocket) Close() error {
	return errors.Join(c.UnixListener.Close(), os.RemoveAll(c.dir))
}
