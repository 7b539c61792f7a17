package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/sys"
)

// owner runs a container in this process, from its start to its end.
type owner struct {
	c      *Containers
	r      *record
	lock   *sys.FileLock
	io     IO
	log    *logWriter
	out    io.WriteCloser
	errout io.WriteCloser

	box        *sandbox.Sandbox
	attachment *network.Attachment
	size       Size

	// started is called when the first start has succeeded or failed.
	started func(error)
	// signals are passed on to the container's first process.
	signals <-chan os.Signal
}

// A restart waits for this long, and twice as long each time up to the second
// value, unless the container ran for ten seconds (Docker's rule).
const (
	restartDelay    = 100 * time.Millisecond
	maxRestartDelay = time.Minute
	stableAfter     = 10 * time.Second
)

// run starts the container, waits for it, and starts it again as its policy
// says. It returns how the last run ended.
func (o *owner) run(ctx context.Context) (exit sandbox.Exit, err error) {
	defer func() { err = errors.Join(err, o.leave(exit, err)) }()
	// A container that a person stopped is started by a person.
	for _, mark := range []string{stopFile, pauseFile} {
		if err := os.Remove(o.r.path(mark)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return exit, o.failed(err)
		}
	}
	if err := o.openLog(); err != nil {
		return exit, o.failed(err)
	}
	o.r.state.RestartCount = 0
	for delay := restartDelay; ; {
		if err := o.start(ctx); err != nil {
			return exit, o.failed(err)
		}
		if o.started != nil {
			o.started(nil)
			o.started = nil
		}
		exit, err = o.wait(ctx)
		if err != nil {
			return exit, err
		}
		if exit.At.Sub(o.r.state.StartedAt) > stableAfter {
			delay = restartDelay
		}
		if !o.again(exit) {
			return exit, nil
		}
		o.r.state.Status = Restarting
		o.r.state.RestartCount++
		if err := o.r.saveState(); err != nil {
			return exit, err
		}
		if !o.pause(ctx, delay) {
			return exit, nil
		}
		delay = min(2*delay, maxRestartDelay)
	}
}

// failed notes a start that did not succeed and tells whoever waits for it.
func (o *owner) failed(err error) error {
	o.r.state.Error = err.Error()
	o.r.state.ExitCode = StartExitCode(err)
	if o.r.state.Status != Restarting {
		o.r.state.Status = Created
	} else {
		o.r.state.Status = Exited
	}
	if o.started != nil {
		o.started(err)
		o.started = nil
	}
	return err
}

// StartExitCode is Docker's exit code for an error of a start: 127 for a
// command that isn't there, 126 for one that can't be executed, 125 for
// whatever else.
func StartExitCode(err error) int {
	var command *sandbox.CommandError
	if errors.As(err, &command) {
		return command.Code
	}
	return 125
}

// start makes one run of the container.
func (o *owner) start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, o.disconnect())
		}
	}()
	r := o.r
	driver, err := o.c.Rootfs()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.path(mountDir), 0o700); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	mounts, err := driver.Stack(ctx, r.config.Layers, r.path(mountDir), r.path(upperDir), r.path(workDir))
	if err != nil {
		return err
	}
	if err := o.reserve(ctx); err != nil {
		return err
	}
	files, err := r.writeFiles(o.attachment)
	if err != nil {
		return err
	}
	spec, err := o.c.spec(ctx, r, files, o.size)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.path(sandboxDir), 0o700); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	config := sandbox.Config{
		ID: r.config.ID, Dir: r.path(sandboxDir), Spec: spec, Groups: r.config.Process.Groups,
		Mounts: mounts, Stdin: o.io.In, Stdout: o.out, Stderr: o.errout,
		Runtime: o.c.Runtime, Attach: o.connect,
	}
	o.box, err = sandbox.Start(ctx, config)
	if err != nil {
		return err
	}
	r.state.Status, r.state.Pid, r.state.StartTime, r.state.Owner = Running, o.box.Pid(), o.box.StartTime(), os.Getpid()
	r.state.StartedAt, r.state.FinishedAt = o.c.Now().UTC(), time.Time{}
	r.state.ExitCode, r.state.Error, r.state.OOMKilled = 0, "", false
	if err := r.saveState(); err != nil {
		return errors.Join(err, o.box.Delete())
	}
	return nil
}

// wait forwards signals and sizes until the process has ended.
func (o *owner) wait(ctx context.Context) (sandbox.Exit, error) {
	done := make(chan struct{})
	go func() {
		resize := o.io.Resize
		for {
			select {
			case <-done:
				return
			case s, open := <-resize:
				if !open {
					resize = nil
					continue
				}
				o.size = s
				_ = o.box.Resize(s.Width, s.Height)
			case s := <-o.signals:
				if sig, ok := s.(unix.Signal); ok {
					_ = o.box.Signal(sig, false)
				}
			case <-ctx.Done():
				// Whoever ends the owner ends the container.
				_ = o.box.Signal(unix.SIGKILL, false)
				return
			}
		}
	}()
	exit, err := o.box.Wait(context.WithoutCancel(ctx))
	close(done)
	err = errors.Join(err, o.box.Delete(), o.disconnect())
	s := &o.r.state
	s.ExitCode, s.OOMKilled, s.FinishedAt = exit.Code, exit.OOM, exit.At.UTC()
	s.Pid, s.StartTime = 0, 0
	return exit, err
}

// again tells whether the policy wants another run.
func (o *owner) again(exit sandbox.Exit) bool {
	if _, err := os.Stat(o.r.path(stopFile)); err == nil {
		return false
	}
	switch policy := o.r.config.Life.Restart; policy.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return exit.Code != 0 && (policy.MaximumRetryCount == 0 || o.r.state.RestartCount < policy.MaximumRetryCount)
	}
	return false
}

// pause waits before a restart; a person who stops the container ends it.
func (o *owner) pause(ctx context.Context, delay time.Duration) bool {
	const look = 100 * time.Millisecond
	for end := time.Now().Add(delay); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(look, time.Until(end))):
		}
		if _, err := os.Stat(o.r.path(stopFile)); err == nil {
			return false
		}
	}
	return true
}

// leave writes the last state and gives the container up.
func (o *owner) leave(exit sandbox.Exit, cause error) error {
	defer o.lock.Close()
	if o.log != nil {
		_ = o.out.Close()
		if o.errout != nil {
			_ = o.errout.Close()
		}
		_ = o.log.Close()
	}
	s := &o.r.state
	if s.Status == Running || s.Status == Restarting {
		s.Status = Exited
	}
	s.Pid, s.StartTime, s.Owner, s.Endpoint = 0, 0, 0, Endpoint{}
	// Those who wait have this file open, even if the container goes now.
	code := exit.Code
	if cause != nil {
		code = s.ExitCode
	}
	if err := os.WriteFile(o.r.path(runningFile), []byte(strconv.Itoa(code)), 0o600); err != nil {
		return err
	}
	if o.r.config.Life.AutoRemove {
		return o.c.erase(o.r, true)
	}
	return o.r.saveState()
}

// openLog connects the streams: to the log and to whoever looks on.
func (o *owner) openLog() error {
	o.out, o.errout = nopCloser{o.io.Out}, nopCloser{o.io.Err}
	if o.r.config.Life.LogDriver != "none" {
		log, err := openLog(o.r.path(logFile), o.c.Now)
		if err != nil {
			return err
		}
		o.log = log
		var person sync.Mutex
		o.out = &tee{log: log.stream("stdout"), person: o.io.Out, mu: &person}
		o.errout = &tee{log: log.stream("stderr"), person: o.io.Err, mu: &person}
	}
	return nil
}

// reserve takes an address and the ports before anything runs.
func (o *owner) reserve(ctx context.Context) error {
	if o.r.config.Network.Mode != "bridge" {
		return nil
	}
	a, err := o.c.Networks.Reserve(ctx, network.Endpoint{ContainerID: o.r.config.ID, Ports: o.r.config.Network.Publish})
	if err != nil {
		return err
	}
	o.attachment = a
	o.r.state.Endpoint = Endpoint{IP: a.IP.String(), Gateway: a.Gateway.String(), MAC: a.MAC.String(), Ports: a.Ports}
	return nil
}

func (o *owner) connect(pid int) error {
	if o.attachment == nil {
		return nil
	}
	return o.attachment.Connect(pid)
}

func (o *owner) disconnect() error {
	if o.attachment == nil {
		return nil
	}
	err := o.attachment.Close()
	o.attachment = nil
	return err
}

// tee writes to a log and to a person, who may leave. A log that can't take
// any more (the disk is full) loses lines; the person does not.
type tee struct {
	log    io.WriteCloser
	person io.Writer
	mu     *sync.Mutex // one for both streams: they may end in one writer
}

func (t *tee) Write(p []byte) (int, error) {
	_, _ = t.log.Write(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.person != nil {
		if _, err := t.person.Write(p); err != nil {
			t.person = nil
		}
	}
	return len(p), nil
}

func (t *tee) Close() error { return t.log.Close() }

// nopCloser drops what it is given if there is no writer.
type nopCloser struct{ w io.Writer }

func (n nopCloser) Write(p []byte) (int, error) {
	if n.w == nil {
		return len(p), nil
	}
	return n.w.Write(p)
}

func (nopCloser) Close() error { return nil }
