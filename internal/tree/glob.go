package tree

import (
	"path"
	"strings"
)

// hasMeta reports whether a name is a pattern of [path.Match].
func hasMeta(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// matches returns the paths of fsys that pattern names, in lexical order. The
// parts before the first wildcard are taken as they are and their symbolic
// links are followed (the last one only if follow says so); the rest is matched
// name by name through real directories only, as fsutil's ResolveWildcards
// does. A pattern without wildcards is its own match, existing or not.
func matches(fsys FS, pattern string, follow bool) ([]string, error) {
	parts := strings.Split(relative(pattern), "/")
	plain := 0
	for plain < len(parts) && !hasMeta(parts[plain]) {
		plain++
	}
	prefix := relative(strings.Join(parts[:plain], "/"))
	if plain == len(parts) {
		return []string{prefix}, nil
	}
	base, err := resolve(fsys.Lstat, fsys.ReadLink, ".", prefix, follow)
	if err != nil {
		return nil, err
	}
	info, err := fsys.Lstat(base)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, nil
	}
	return glob(fsys, nil, base, parts[plain:])
}

func glob(fsys FS, found []string, dir string, parts []string) ([]string, error) {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		ok, err := path.Match(parts[0], e.Name())
		if err != nil {
			return found, nil // a pattern that means nothing matches nothing, as in BuildKit
		}
		if !ok {
			continue
		}
		if len(parts) == 1 {
			found = append(found, join(dir, e.Name()))
			continue
		}
		if !e.IsDir() {
			continue
		}
		if found, err = glob(fsys, found, join(dir, e.Name()), parts[1:]); err != nil {
			return nil, err
		}
	}
	return found, nil
}
