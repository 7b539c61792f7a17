package tree

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// followLinks returns, for paths that may end in wildcards, the paths of all
// symbolic links on the way and of what is at the end, as fsutil's FollowLinks
// does. nil means all of fsys.
func followLinks(fsys FS, paths []string) ([]string, error) {
	f := follower{fsys, map[string]bool{}}
	for _, p := range paths {
		if err := f.add(p); err != nil {
			return nil, err
		}
	}
	return withoutNested(slices.Sorted(maps.Keys(f.found))), nil
}

type follower struct {
	fsys  FS
	found map[string]bool
}

func (f follower) add(name string) error {
	if clean := path.Join(".", name); clean == ".." || strings.HasPrefix(clean, "../") {
		f.found[clean] = true // leaves the tree: matches nothing
		return nil
	}
	rest, at := relative(name), "."
	for {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		at = join(at, part)
		targets, err := f.targets(at, true)
		if err != nil {
			return err
		}
		if targets == nil && rest != "" {
			continue
		}
		if f.found[at] {
			return nil
		}
		f.found[at] = true
		for _, t := range targets {
			if err := f.add(path.Join(t, rest)); err != nil {
				return err
			}
		}
		return nil
	}
}

// targets returns where name leads if it is a symbolic link, or where those
// links lead that it matches.
func (f follower) targets(name string, wildcard bool) ([]string, error) {
	dir, last := split(name)
	if wildcard && hasMeta(last) {
		entries, err := f.fsys.ReadDir(dir)
		if gone(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var all []string
		for _, e := range entries {
			if ok, _ := path.Match(last, e.Name()); !ok || e.Type() != fs.ModeSymlink {
				continue
			}
			targets, err := f.targets(join(dir, e.Name()), false)
			if err != nil {
				return nil, err
			}
			all = append(all, targets...)
		}
		return all, nil
	}
	info, err := f.fsys.Lstat(name)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return nil, nil
	}
	target, err := f.fsys.ReadLink(name)
	if err != nil {
		return nil, err
	}
	if !path.IsAbs(target) {
		target = path.Join("/", dir, target)
	}
	return []string{target}, nil
}

// withoutNested drops paths that follow a directory that they lie in. If one is
// the root, nothing needs naming.
func withoutNested(paths []string) []string {
	var kept []string
	last := "\x00"
	for _, p := range paths {
		if p == "." {
			return nil
		}
		if strings.HasPrefix(p, last+"/") {
			continue
		}
		kept, last = append(kept, p), p
	}
	return kept
}
