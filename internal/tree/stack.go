package tree

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// A directory of at least hotLayers layers that was asked for hotLookups names
// is worth listing.
const (
	hotLayers  = 4
	hotLookups = 16
)

// maxDirs bounds how many directories a stack remembers the layers of.
const maxDirs = 1 << 14

// Stack shows layers, lowest first, as one tree. Whiteouts and opaque
// directories take effect and are not seen. A directory has the attributes that
// it has in the highest layer that really holds it: one that is only implied
// there (layer.Stat.Implied) says nothing about them.
//
// A lookup asks only the layers that have the directory. Which ones those are
// is remembered for up to 16,384 directories, and the names of the one directory
// of many layers that is asked most at the time; nothing else is kept.
func Stack(layers ...FS) FS {
	s := &stack{layers: slices.Clone(layers), dirs: map[string][]int{}}
	slices.Reverse(s.layers)
	return s
}

// stack holds its layers topmost first.
type stack struct {
	layers []FS

	mu   sync.Mutex
	dirs map[string][]int // directory -> the layers that show through, topmost first
	hot  hotDir
}

// hotDir is the directory that the last lookups were in.
type hotDir struct {
	path    string
	lookups int
	top     map[string]int // name -> the topmost layer that has it; nil until it is listed
}

// dirLayers returns the layers whose entries the directory dir shows.
func (s *stack) dirLayers(op, dir string) ([]int, error) {
	s.mu.Lock()
	known, ok := s.dirs[dir]
	s.mu.Unlock()
	if ok {
		return known, nil
	}
	var found []int
	if dir == "." {
		var err error
		if found, err = s.rootLayers(); err != nil {
			return nil, err
		}
	} else {
		m, err := s.lookup(op, dir)
		if err != nil {
			return nil, err
		}
		if !m.info.IsDir() {
			return nil, &fs.PathError{Op: op, Path: dir, Err: syscall.ENOTDIR}
		}
		found = m.below
	}
	s.mu.Lock()
	if len(s.dirs) >= maxDirs {
		clear(s.dirs)
	}
	s.dirs[dir] = found
	s.mu.Unlock()
	return found, nil
}

func (s *stack) rootLayers() ([]int, error) {
	found := make([]int, 0, len(s.layers))
	for i, l := range s.layers {
		info, err := l.Lstat(".")
		if err != nil {
			return nil, err
		}
		found = append(found, i)
		if statOf(info).Opaque {
			break
		}
	}
	return found, nil
}

// merged is what a name is in a stack.
type merged struct {
	info  fs.FileInfo
	layer int         // that info is of
	below []int       // for a directory all layers whose entries it shows, topmost first
	top   fs.FileInfo // what the topmost of them says, which overlayfs believes
}

// lookup finds what name, which is not the root, is. As in overlayfs, the
// topmost entry decides, and a directory merges downwards until one is opaque
// or something else is in the way. Attributes of an implied directory are
// looked for below an opaque one, too: what that hides are files.
func (s *stack) lookup(op, name string) (m merged, err error) {
	dir, last := split(name)
	candidates, err := s.dirLayers(op, dir)
	if err != nil {
		return m, err
	}
	if len(candidates) >= hotLayers {
		top, known, err := s.topmost(dir, last, candidates)
		if err != nil {
			return m, err
		}
		if known {
			candidates = candidates[slices.Index(candidates, top):]
		}
	}
	closed := false
	for _, i := range candidates {
		found, err := s.layers[i].Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return m, err
		}
		stat := statOf(found)
		if stat.Whiteout || m.info != nil && !found.IsDir() {
			break
		}
		if m.info == nil {
			m.info, m.layer, m.top = found, i, found
		} else if statOf(m.info).Implied && !stat.Implied {
			m.info, m.layer = found, i
		}
		if !found.IsDir() {
			break
		}
		if !closed {
			m.below = append(m.below, i)
		}
		if closed = closed || stat.Opaque; closed && !statOf(m.info).Implied {
			break
		}
	}
	if m.info == nil {
		return m, notExist(op, name)
	}
	return m, nil
}

// root describes the root, of the highest layer that really holds it.
func (s *stack) root() (m merged, err error) {
	for i, l := range s.layers {
		info, err := l.Lstat(".")
		if err != nil {
			return m, err
		}
		real := !statOf(info).Implied
		if i == 0 {
			m.info, m.top = info, info
		} else if real {
			m.info, m.layer = info, i
		}
		if real {
			break
		}
	}
	return m, nil
}

// topmost is the highest layer that has name in dir, whiteouts included, if the
// directory has been asked for so many names that it was listed. A name that is
// nowhere counts as being in the lowest layer.
func (s *stack) topmost(dir, name string, layers []int) (top int, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hot.path != dir {
		s.hot = hotDir{path: dir}
	}
	s.hot.lookups++
	if s.hot.lookups < hotLookups {
		return 0, false, nil
	}
	if s.hot.top == nil {
		tops := map[string]int{}
		for _, i := range layers {
			entries, err := s.layers[i].ReadDir(dir)
			if err != nil {
				return 0, false, err
			}
			for _, e := range entries {
				if _, seen := tops[e.Name()]; !seen {
					tops[e.Name()] = i
				}
			}
		}
		s.hot.top = tops
	}
	if top, ok := s.hot.top[name]; ok {
		return top, true, nil
	}
	return layers[len(layers)-1], true, nil
}

// shown is info of layer i as the stack shows it.
func (s *stack) shown(i int, name string, info fs.FileInfo) *attr {
	stat := *statOf(info)
	stat.Whiteout, stat.Opaque = false, false
	stat.Ino = mix(stat.Ino, uint64(len(s.layers)-i)) // files of two layers are no hard links
	from, at := origin(s.layers[i], name, info)
	_, base := split(name)
	return &attr{name: base, mode: info.Mode(), size: info.Size(), mtime: info.ModTime(), stat: &stat, from: from, at: at}
}

// Lstat describes a file.
func (s *stack) Lstat(name string) (fs.FileInfo, error) {
	if err := checkPath("lstat", name); err != nil {
		return nil, err
	}
	if name == "." {
		if len(s.layers) == 0 {
			return Empty().Lstat(".")
		}
		m, err := s.root()
		if err != nil {
			return nil, err
		}
		return s.shown(m.layer, ".", m.info), nil
	}
	m, err := s.lookup("lstat", name)
	if err != nil {
		return nil, err
	}
	return s.shown(m.layer, name, m.info), nil
}

// ReadLink returns the target of a symbolic link.
func (s *stack) ReadLink(name string) (string, error) {
	if err := checkPath("readlink", name); err != nil {
		return "", err
	}
	if name == "." {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	m, err := s.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	return s.layers[m.layer].ReadLink(name)
}

// Open opens a file.
func (s *stack) Open(name string) (fs.File, error) {
	info, err := s.Lstat(name)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return openDir(s, name, info), nil
	case !info.Mode().IsRegular():
		return nil, notRegular(name)
	}
	a := info.(*attr)
	return a.from.Open(a.at)
}

// ReadDir returns the entries of a directory, sorted by name.
func (s *stack) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := checkPath("readdir", name); err != nil {
		return nil, err
	}
	layers, err := s.dirLayers("readdir", name)
	if err != nil {
		return nil, err
	}
	var merged []fs.DirEntry
	seen := map[string]bool{}
	for _, i := range layers {
		entries, err := s.layers[i].ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if len(layers) > 1 {
				if seen[e.Name()] {
					continue
				}
				seen[e.Name()] = true
			}
			hidden, err := isWhiteout(e)
			if err != nil {
				return nil, err
			}
			if !hidden {
				merged = append(merged, &stackEntry{DirEntry: e, stack: s, layer: i, path: join(name, e.Name())})
			}
		}
	}
	if len(layers) > 1 {
		slices.SortFunc(merged, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return merged, nil
}

func isWhiteout(e fs.DirEntry) (bool, error) {
	if e.Type()&fs.ModeCharDevice == 0 {
		return false, nil
	}
	info, err := e.Info()
	if err != nil {
		return false, err
	}
	return statOf(info).Whiteout, nil
}

// stackEntry is an entry of one layer as the stack shows it.
type stackEntry struct {
	fs.DirEntry
	stack *stack
	layer int
	path  string
}

func (e *stackEntry) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	if statOf(info).Implied {
		return e.stack.Lstat(e.path)
	}
	return e.stack.shown(e.layer, e.path, info), nil
}
