package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// record is a container as its files describe it.
type record struct {
	dir    string
	config Config
	state  State
	// running tells whether somebody owned it when it was looked at.
	running bool
}

// The files of a container. docs/format/container.md describes them.
const (
	configFile  = "config.json"
	stateFile   = "state.json"
	runningFile = "running" // locked by the owner; holds the last exit code
	stopFile    = "stopped" // there if a person stopped it
	pauseFile   = "paused"  // there while its processes are frozen
	logFile     = "log.json"
	sandboxDir  = "sandbox"
	mountDir    = "root"
	upperDir    = "upper"
	workDir     = "work"
)

func (r *record) path(name string) string { return filepath.Join(r.dir, name) }

// load reads the container id.
func (c *Containers) load(id string) (*record, error) {
	r := &record{dir: c.Store.ContainerDir(id)}
	if err := readJSON(r.path(configFile), &r.config); errors.Is(err, fs.ErrNotExist) {
		return nil, because(errdefs.ErrNotFound, "no such container: %s", id)
	} else if err != nil {
		return nil, fmt.Errorf("load container %s: %w", id, err)
	}
	return r, c.reload(r)
}

// reload reads the state again. The lock is looked at first: an owner writes
// the last state before it lets go.
func (c *Containers) reload(r *record) error {
	running, err := r.owned()
	if err != nil {
		return err
	}
	r.running = running
	return c.reread(r)
}

func (c *Containers) reread(r *record) error {
	err := readJSON(r.path(stateFile), &r.state)
	if errors.Is(err, fs.ErrNotExist) {
		r.state = State{Status: Created}
		return nil
	}
	if err != nil {
		return fmt.Errorf("load container %s: %w", r.config.ID, err)
	}
	return nil
}

// owned tells whether a process owns the container.
func (r *record) owned() (bool, error) {
	lock, err := sys.TryLock(r.path(runningFile), sys.Shared)
	if errdefs.IsUnavailable(err) {
		return true, nil
	}
	if err != nil {
		if _, serr := os.Stat(r.dir); errors.Is(serr, fs.ErrNotExist) {
			return false, because(errdefs.ErrNotFound, "no such container: %s", r.config.ID)
		}
		return false, fmt.Errorf("look at container %s: %w", r.config.ID, err)
	}
	return false, lock.Close()
}

// own takes the container for this process. If it has an owner already, that
// is an [errdefs.ErrConflict].
func (r *record) own() (*sys.FileLock, error) {
	for {
		lock, err := sys.TryLock(r.path(runningFile), sys.Exclusive)
		if err == nil {
			return lock, nil
		}
		if !errdefs.IsUnavailable(err) {
			return nil, fmt.Errorf("take container %s: %w", r.config.ID, err)
		}
		// Somebody who only looks holds it for a moment.
		owned, err := r.owned()
		if err != nil {
			return nil, err
		}
		if owned {
			return nil, because(errdefs.ErrConflict, "container %s is running", r.config.Name)
		}
	}
}

// settle puts right what an owner that was killed has left: processes that
// outlived it, control groups, and its word that the container runs.
func (c *Containers) settle(r *record) error {
	if r.running || !r.abandoned() {
		return nil
	}
	lock, err := r.own()
	if errors.Is(err, errdefs.ErrConflict) {
		r.running = true
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	// Somebody else may have settled it meanwhile.
	if err := c.reread(r); err != nil || !r.abandoned() {
		return err
	}
	if err := sandbox.Clean(r.path(sandboxDir), r.config.ID, r.config.Resources.CgroupParent); err != nil {
		return err
	}
	if r.config.Life.AutoRemove {
		if err := c.erase(r, true); err != nil {
			return err
		}
		return because(errdefs.ErrNotFound, "no such container: %s", r.config.Name)
	}
	if r.state.Status != Created {
		r.state.Status = Exited
		r.state.ExitCode = 137
		r.state.FinishedAt = c.Now()
	}
	r.state.Error = "the process that looked after the container was killed"
	r.state.Pid, r.state.StartTime, r.state.Owner, r.state.Endpoint = 0, 0, 0, Endpoint{}
	return r.saveState()
}

// abandoned tells whether an owner left without saying so. It is only asked
// of a container that has none.
func (r *record) abandoned() bool {
	if r.state.Owner != 0 || r.state.Status == Running || r.state.Status == Restarting {
		return true
	}
	_, err := os.Lstat(r.path(filepath.Join(sandboxDir, r.config.ID)))
	return err == nil
}

func (r *record) saveState() error {
	// Not synced: after a power cut every container has exited anyway.
	return writeJSON(r.path(stateFile), r.state)
}

// saveConfig writes the configuration. That of a container which removes
// itself is not worth waiting for the disk.
func (r *record) saveConfig() error {
	if r.config.Life.AutoRemove {
		return writeJSON(r.path(configFile), r.config)
	}
	data, err := json.Marshal(r.config)
	if err != nil {
		return err
	}
	return store.WriteFile(r.path(configFile), data)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file at path for every reader, but not for a power
// cut.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	aside := path + ".new"
	if err := os.WriteFile(aside, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
