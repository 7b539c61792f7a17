package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
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
	f := &filtered{fsys: fsys, states: map[string]matched{".": {}}, lists: map[string][]fs.DirEntry{}}
	var err error
	if f.include, err = newMatcher("include", include); err != nil {
		return nil, err
	}
	if f.exclude, err = newMatcher("exclude", exclude); err != nil {
		return nil, err
	}
	if f.include == nil && f.exclude == nil {
		return fsys, nil
	}
	f.included = plainPrefixes(f.include, false)
	f.excepted = plainPrefixes(f.exclude, true)
	return f, nil
}

// filtered is the part of a tree that patterns select.
type filtered struct {
	fsys             FS
	include, exclude *patternmatcher.PatternMatcher

	// included and excepted are the paths below which alone something can be
	// included again, if the patterns are plain enough to tell.
	included, excepted prefixes

	mu     sync.Mutex // also of the matchers, which compile patterns on their first use
	states map[string]matched
	lists  map[string][]fs.DirEntry
}

// matched is what the patterns say of a directory, as its entries need it.
type matched struct {
	include, exclude patternmatcher.MatchInfo
	in, out          bool // matches an include pattern; matches an exclude pattern
}

// prefixes are paths of patterns without wildcards. It is nil if there are
// others.
type prefixes []string

func plainPrefixes(m *patternmatcher.PatternMatcher, exclusions bool) prefixes {
	if m == nil {
		return nil
	}
	plain := prefixes{}
	for _, p := range m.Patterns() {
		if p.Exclusion() != exclusions {
			continue
		}
		path := strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
		if strings.ContainsAny(path, `*[]?^\`) {
			return nil
		}
		plain = append(plain, path)
	}
	return plain
}

// below reports whether one of the paths may lie below dir.
func (p prefixes) below(dir string) bool {
	return p == nil || slices.ContainsFunc(p, func(path string) bool {
		return strings.HasPrefix(path+"/", dir+"/")
	})
}

// match says what the patterns mean for path in a directory in state up.
func (f *filtered) match(path string, up matched) (matched, error) {
	m := matched{in: true}
	var err error
	if f.include != nil {
		if m.in, m.include, err = f.include.MatchesUsingParentResults(path, up.include); err != nil {
			return m, badPattern(err)
		}
	}
	if f.exclude != nil {
		if m.out, m.exclude, err = f.exclude.MatchesUsingParentResults(path, up.exclude); err != nil {
			return m, badPattern(err)
		}
	}
	return m, nil
}

func badPattern(err error) error {
	return fmt.Errorf("match pattern: %w: %w", err, errdefs.ErrInvalidArgument)
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
	return f.match(path, up)
}

// shows reports whether path, a file or a directory in state m, is there.
func (f *filtered) shows(path string, isDir bool, m matched) (bool, error) {
	if m.in && !m.out {
		return true, nil
	}
	if !isDir || !m.in && !f.included.below(path) || m.out && (!f.exclude.Exclusions() || !f.excepted.below(path)) {
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
		km, err := f.match(kid, m)
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
func (f *filtered) ReadDir(name string) ([]fs.DirEntry, error) {
	if _, err := f.Lstat(name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if list, ok := f.lists[name]; ok {
		return slices.Clone(list), nil
	}
	state, err := f.state(name)
	if err != nil {
		return nil, err
	}
	f.states[name] = state
	entries, err := f.fsys.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for _, e := range entries {
		kid := join(name, e.Name())
		m, err := f.match(kid, state)
		if err != nil {
			return nil, err
		}
		shown, err := f.shows(kid, e.IsDir(), m)
		if err != nil {
			return nil, err
		}
		if shown {
			list = append(list, e)
		}
	}
	f.lists[name] = list
	return slices.Clone(list), nil
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
