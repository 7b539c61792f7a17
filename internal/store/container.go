package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// holdsFile makes a directory below containers/ a container: the directory
// appears with it, by one rename, and removal begins with its unlink.
//
// A transient container has "holds-BOOT" instead, with the kernel's id of the
// boot that it lives in, and is no container after the next one.
const holdsFile = "holds"

// bootID tells one boot of the machine from the next (random(4)).
const bootID = "/proc/sys/kernel/random/boot_id"

// holdsPath is the file that makes the directory of a container one, or would.
func (s *Store) holdsPath(dir string) string {
	path := filepath.Join(dir, holdsFile)
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	if boot, err := s.boot(); err == nil {
		return path + "-" + boot
	}
	return path
}

func (s *Store) boot() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bootID != "" {
		return s.bootID, nil
	}
	data, err := os.ReadFile(bootID)
	if err != nil {
		return "", err
	}
	s.bootID = string(bytes.TrimSpace(data))
	return s.bootID, nil
}

// NewTransientContainer is [Store.NewContainer] for a container that nobody
// will miss after a power cut, because it goes away when it ends. It does not
// wait for the disk.
func (s *Store) NewTransientContainer(id string, holds []digest.Digest) (dir string, err error) {
	boot, err := s.boot()
	if err != nil {
		return s.NewContainer(id, holds)
	}
	if !validTag(id) {
		return "", fmt.Errorf("make container %.100q: invalid id: %w", id, errdefs.ErrInvalidArgument)
	}
	data, err := json.Marshal(holds)
	if err != nil {
		return "", err
	}
	own, err := s.ownLease()
	var aside string
	if err == nil {
		aside, err = own.tempName()
	}
	if err == nil {
		err = mkdir(aside)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(aside, holdsFile+"-"+boot), append(data, '\n'), 0o600)
	}
	if err == nil {
		err = s.placeContainer(aside, s.ContainerDir(id), holds)
	}
	if err != nil {
		os.RemoveAll(aside)
		return "", fmt.Errorf("make container %s: %w", id, err)
	}
	return s.ContainerDir(id), nil
}

// placeContainer makes the directory aside the one called dir, if all that the
// container holds is there.
func (s *Store) placeContainer(aside, dir string, holds []digest.Digest) error {
	return s.shared(func() error {
		for _, d := range holds {
			if err := s.present(d, -1); err != nil {
				return err
			}
		}
		return sys.RenameNoReplace(aside, dir)
	})
}

// NewContainer makes the directory of a container and keeps holds, and all
// that its documents refer to, for as long as the container is there. An id
// that is taken is an [errdefs.ErrAlreadyExists], content that is missing an
// [errdefs.ErrNotFound].
func (s *Store) NewContainer(id string, holds []digest.Digest) (dir string, err error) {
	if !validTag(id) {
		return "", fmt.Errorf("make container %.100q: invalid id: %w", id, errdefs.ErrInvalidArgument)
	}
	if dir, err = s.newContainer(id, holds); err != nil {
		return "", fmt.Errorf("make container %s: %w", id, err)
	}
	return dir, nil
}

func (s *Store) newContainer(id string, holds []digest.Digest) (string, error) {
	own, err := s.ownLease()
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(holds)
	if err != nil {
		return "", err
	}
	aside, err := own.tempName()
	if err == nil {
		err = mkdir(aside)
	}
	if err == nil {
		err = WriteFile(filepath.Join(aside, holdsFile), append(data, '\n'))
	}
	dir := s.ContainerDir(id)
	if err == nil {
		err = s.placeContainer(aside, dir, holds)
	}
	if err == nil {
		err = sys.SyncDir(s.path(containersDir))
	}
	if err != nil {
		os.RemoveAll(aside)
		return "", err
	}
	return dir, nil
}

// ContainerDir is where the container keeps what it needs. The file "holds" in
// it is the store's.
func (s *Store) ContainerDir(id string) string { return s.path(containersDir, id) }

// Containers returns the ids of all containers, sorted.
func (s *Store) Containers() ([]string, error) {
	entries, err := os.ReadDir(s.path(containersDir))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if _, err := os.Lstat(s.holdsPath(s.ContainerDir(e.Name()))); err == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// ContainerHolds returns what the container keeps from collection.
func (s *Store) ContainerHolds(id string) ([]digest.Digest, error) {
	path := s.holdsPath(s.ContainerDir(id))
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read container %s: %w", id, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var holds []digest.Digest
	if err := json.Unmarshal(bytes.TrimSpace(data), &holds); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", path, err, errdefs.ErrDataLoss)
	}
	return holds, nil
}

// RemoveContainer removes the container and all that is in its directory. It
// needs no space. Interrupted, it leaves a directory that is no container any
// more, which the next removal or collection takes away. A container that
// isn't there is an [errdefs.ErrNotFound].
func (s *Store) RemoveContainer(id string) error {
	if !validTag(id) {
		return fmt.Errorf("remove container %.100q: invalid id: %w", id, errdefs.ErrInvalidArgument)
	}
	dir := s.ContainerDir(id)
	path := s.holdsPath(dir)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.ErrNotFound
	}
	if err == nil && filepath.Base(path) == holdsFile {
		// Before the collector can take away what the container held. It may
		// take the directory itself away by now.
		if err = sys.SyncDir(dir); errdefs.IsNotFound(err) {
			err = nil
		}
	}
	if err == nil {
		err = s.removeAway(dir)
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// removeAway removes the tree at dir under another name, so that whoever
// still looks into it by its old one (to see whether it runs, say) finds
// nothing and leaves nothing in it.
func (s *Store) removeAway(dir string) error {
	at, err := s.moveAway(dir)
	if err != nil || at == "" {
		return err
	}
	return removeTree(at)
}
