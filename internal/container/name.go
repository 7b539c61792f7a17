package container

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sys"
)

// validName is Docker's rule for the names of containers.
var validName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
})

// namesDir holds a symbolic link for each name; what it points at is the id.
// Making a link fails if there is one, which makes names unique.
func (c *Containers) namesDir() string { return filepath.Join(c.Store.Root(), "names") }

// owner returns the id of the container called name.
func (c *Containers) owner(name string) (string, error) {
	if !validName().MatchString(name) {
		return "", because(errdefs.ErrNotFound, "no such container: %s", name)
	}
	id, err := os.Readlink(filepath.Join(c.namesDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", because(errdefs.ErrNotFound, "no such container: %s", name)
	}
	return id, err
}

// claim gives name to the container id, whose configuration must be in place
// by now. A name that is taken is an [errdefs.ErrConflict].
func (c *Containers) claim(name, id string) error {
	if !validName().MatchString(name) {
		return because(errdefs.ErrInvalidArgument, "invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	link := filepath.Join(c.namesDir(), name)
	for {
		err := os.Symlink(id, link)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			if err := os.MkdirAll(c.namesDir(), 0o700); err != nil {
				return fmt.Errorf("claim name %s: %w", name, err)
			}
			continue
		case !errors.Is(err, fs.ErrExist):
			return fmt.Errorf("claim name %s: %w", name, err)
		}
		holder, err := os.Readlink(link)
		if err != nil {
			continue // given up just now
		}
		if _, err := os.Stat(filepath.Join(c.Store.ContainerDir(holder), configFile)); err == nil {
			return because(errdefs.ErrConflict, "container name %q is already in use by container %q; remove or rename that container to use the name", "/"+name, holder)
		}
		if err := c.disown(name, holder); err != nil {
			return err
		}
	}
}

// disown takes name away from the container id, if it still has it.
func (c *Containers) disown(name, id string) error {
	// Between reading the link and removing it, another process could have
	// removed it, too, and somebody else claimed the name.
	if err := os.MkdirAll(c.namesDir(), 0o700); err != nil {
		return err
	}
	lock, err := sys.Lock(filepath.Join(c.namesDir(), ".lock"), sys.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	link := filepath.Join(c.namesDir(), name)
	if holder, err := os.Readlink(link); err != nil || holder != id {
		return nil //nolint:nilerr // it's gone, which is what was wanted
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release name %s: %w", name, err)
	}
	return nil
}

// generateName returns a name that nobody has chosen. After some tries it
// gets a number, so that it does not run out of words.
func generateName(try int) string {
	name := pick(adjectives[:]) + "_" + pick(nouns[:])
	if try > 5 {
		name += fmt.Sprint(try)
	}
	return name
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		panic("container: no randomness: " + err.Error())
	}
	return words[n.Int64()]
}

// NewID returns 64 random hexadecimal digits.
func NewID() string {
	var b [32]byte
	// Never fails (crypto/rand, Go 1.24).
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
