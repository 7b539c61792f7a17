package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher/ignorefile"
)

// Select shows fsys without what the patterns of an ignore file leave out.
func Select(fsys FS, ignore []string) (FS, error) { return Include(fsys, nil, ignore, nil) }

// IgnoreFile reads the patterns of a .dockerignore file.
func IgnoreFile(r io.Reader) ([]string, error) {
	patterns, err := ignorefile.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read ignore file: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return patterns, nil
}

// Include shows the part of fsys that matches a pattern of include, or all of
// it if there is none, and matches no pattern of exclude. The symbolic links on
// the way to followPaths, and what they lead to, count as included. A directory
// that is left out itself is there if something in it is not.
//
// Patterns are those of .dockerignore files; the rules are fsutil's FilterFS.
func Include(fsys FS, include, exclude, followPaths []string) (FS, error) {
	if len(followPaths) > 0 {
		targets, err := followLinks(fsys, followPaths)
		if err != nil {
			return nil, fmt.Errorf("follow links: %w", classed(err))
		}
		if targets != nil {
			include = withoutNested(append(slices.Clone(include), targets...))
		}
	}
	p, err := newPatterns(include, exclude)
	if err != nil {
		return nil, err
	}
	if p.none() {
		return fsys, nil
	}
	return &filtered{
		fsys: fsys, patterns: p, states: map[string]matched{".": {}}, shown: map[string]bits{},
	}, nil
}

// filtered is the part of a tree that patterns select.
type filtered struct {
	fsys FS

	mu       sync.Mutex
	patterns patterns
	states   map[string]matched // of directories
	shown    map[string]bits    // which entries of directories are there
}

// state returns what the patterns say of path, from the root down.
func (f *filtered) state(path string) (matched, error) {
	if m, ok := f.states[path]; ok {
		return m, nil
	}
	dir, _ := split(path)
	up, err := f.state(dir)
	if err != nil {
		return matched{}, err
	}
	return f.patterns.match(path, up)
}

// shows reports whether path, a file or a directory in state m, is there.
func (f *filtered) shows(path string, isDir bool, m matched) (bool, error) {
	if m.selected() {
		return true, nil
	}
	if !isDir || !f.patterns.below(path, m) {
		return false, nil
	}
	// Something in it may be there: look until one is found.
	entries, err := f.fsys.ReadDir(path)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		kid := join(path, e.Name())
		km, err := f.patterns.match(kid, m)
		if err != nil {
			return false, err
		}
		if found, err := f.shows(kid, e.IsDir(), km); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// Lstat describes a file.
func (f *filtered) Lstat(name string) (fs.FileInfo, error) {
	info, err := f.fsys.Lstat(name)
	if err != nil || name == "." {
		return info, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.state(name)
	if err != nil {
		return nil, err
	}
	shown, err := f.shows(name, info.IsDir(), m)
	if err != nil {
		return nil, err
	}
	if !shown {
		return nil, notExist("lstat", name)
	}
	return info, nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (f *filtered) ReadDir(name string) ([]fs.DirEntry, error) { return allEntries(f, name) }

func (f *filtered) eachEntry(name string, use func(fs.DirEntry) error) error {
	if _, err := f.Lstat(name); err != nil {
		return err
	}
	shown, err := f.entries(name)
	if err != nil {
		return err
	}
	i := uint32(0)
	return eachEntry(f.fsys, name, func(e fs.DirEntry) error {
		if i++; !shown.has(i - 1) {
			return nil
		}
		return use(e)
	})
}

// entries says which of the entries of the directory name are there.
func (f *filtered) entries(name string) (bits, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if shown, ok := f.shown[name]; ok {
		return shown, nil
	}
	state, err := f.state(name)
	if err != nil {
		return nil, err
	}
	f.states[name] = state
	var selected bits
	i := uint32(0)
	err = eachEntry(f.fsys, name, func(e fs.DirEntry) error {
		kid := join(name, e.Name())
		m, err := f.patterns.match(kid, state)
		if err != nil {
			return err
		}
		shown, err := f.shows(kid, e.IsDir(), m)
		if shown {
			selected.set(i)
		}
		i++
		return err
	})
	if err != nil {
		return nil, err
	}
	f.shown[name] = selected
	return selected, nil
}

// ReadLink returns the target of a symbolic link.
func (f *filtered) ReadLink(name string) (string, error) {
	if _, err := f.Lstat(name); err != nil {
		return "", err
	}
	return f.fsys.ReadLink(name)
}

// Open opens a file.
func (f *filtered) Open(name string) (fs.File, error) {
	info, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openDir(f, name, info), nil
	}
	return f.fsys.Open(name)
}
