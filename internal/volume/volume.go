// Package volume keeps named directories that outlive containers.
//
// A volume is a directory below the store's volumes/: NAME/_data is what a
// container sees, NAME/volume.json says how it was made. Its existence is the
// existence of that file, which is renamed into place last and removed first.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Volumes are those of one store. Any number of processes may use them.
type Volumes struct{ dir string }

// New returns the volumes that lie in dir, which is made when it is needed.
func New(dir string) *Volumes { return &Volumes{dir} }

// Volume is one of them, as `volume inspect` shows it.
type Volume struct {
	Name       string
	CreatedAt  time.Time
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Options    map[string]string
	Scope      string
}

// valid is Docker's rule for names; an id of 64 digits passes, too.
var valid = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
})

// CheckName is an [errdefs.ErrInvalidArgument] for what can't be the name of
// a volume.
func CheckName(name string) error {
	if !valid().MatchString(name) {
		return because(errdefs.ErrInvalidArgument, "volume %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed in a name", name)
	}
	return nil
}

// Create makes the volume called name, or returns the one that is there.
// created tells which.
func (v *Volumes) Create(name string, labels map[string]string, now time.Time) (_ Volume, created bool, err error) {
	if err := CheckName(name); err != nil {
		return Volume{}, false, err
	}
	if found, err := v.Get(name); !errors.Is(err, errdefs.ErrNotFound) {
		return found, false, err
	}
	dir := filepath.Join(v.dir, name)
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return Volume{}, false, fmt.Errorf("create volume %s: %w", name, err)
	}
	// A container's user needs to get through: 0711 on the way is not enough
	// for the mount, which starts at _data.
	if err := os.MkdirAll(filepath.Join(dir, "_data"), 0o755); err != nil {
		return Volume{}, false, fmt.Errorf("create volume %s: %w", name, err)
	}
	made := Volume{Name: name, CreatedAt: now.UTC().Truncate(time.Second), Driver: "local", Labels: labels, Scope: "local"}
	data, err := json.Marshal(made)
	if err != nil {
		return Volume{}, false, err
	}
	temp, err := os.CreateTemp(dir, ".volume-")
	if err != nil {
		return Volume{}, false, fmt.Errorf("create volume %s: %w", name, err)
	}
	_, err = temp.Write(data)
	if cerr := temp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		// Link and not rename: of two at once, one creates.
		err = os.Link(temp.Name(), filepath.Join(dir, "volume.json"))
	}
	os.Remove(temp.Name())
	if errors.Is(err, fs.ErrExist) {
		found, err := v.Get(name)
		return found, false, err
	}
	if err != nil {
		return Volume{}, false, fmt.Errorf("create volume %s: %w", name, err)
	}
	made.Mountpoint = filepath.Join(dir, "_data")
	return made, true, nil
}

// Get returns the volume called name, or an [errdefs.ErrNotFound].
func (v *Volumes) Get(name string) (Volume, error) {
	if err := CheckName(name); err != nil {
		return Volume{}, err
	}
	data, err := os.ReadFile(filepath.Join(v.dir, name, "volume.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, because(errdefs.ErrNotFound, "get %s: no such volume", name)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("get volume %s: %w", name, err)
	}
	var found Volume
	if err := json.Unmarshal(data, &found); err != nil {
		return Volume{}, fmt.Errorf("read volume %s: %w", name, err)
	}
	found.Mountpoint = filepath.Join(v.dir, name, "_data")
	return found, nil
}

// List returns all volumes by name.
func (v *Volumes) List() ([]Volume, error) {
	entries, err := os.ReadDir(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []Volume
	for _, e := range entries {
		found, err := v.Get(e.Name())
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalidArgument) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	slices.SortFunc(all, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Remove removes a volume with all that it holds. Whether a container uses it
// is for the caller to know.
func (v *Volumes) Remove(name string) error {
	if _, err := v.Get(name); err != nil {
		return err
	}
	dir := filepath.Join(v.dir, name)
	if err := os.Remove(filepath.Join(dir, "volume.json")); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}
