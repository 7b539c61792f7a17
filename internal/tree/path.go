package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// maxLinks is how many symbolic links one resolution may follow: the figure of
// BuildKit (continuity fs.RootPath), the kernel allows 40.
const maxLinks = 255

// relative turns a path of a Dockerfile, absolute or not, into the form that FS
// takes. ".." ends at the root.
func relative(p string) string {
	p = path.Clean("/" + p)
	if p == "/" {
		return "."
	}
	return p[1:]
}

// absolute is the path as people read it.
func absolute(p string) string {
	if p == "." {
		return "/"
	}
	return "/" + p
}

// join is path.Join for a clean directory and one name.
func join(dir, name string) string {
	switch {
	case dir == ".":
		return name
	case name == ".":
		return dir
	}
	return dir + "/" + name
}

// split is the directory and the last name of a clean path; the root is its
// own directory.
func split(p string) (dir, name string) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ".", p
	}
	return p[:i], p[i+1:]
}

// checkPath holds callers to the form of [fs.ValidPath], apart from UTF-8.
func checkPath(op, p string) error {
	if p == "." {
		return nil
	}
	for rest := p; ; {
		name, more, found := strings.Cut(rest, "/")
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return &fs.PathError{Op: op, Path: p, Err: fs.ErrInvalid}
		}
		if !found {
			return nil
		}
		rest = more
	}
}

// Resolve follows the symbolic links of name inside fsys, the last one
// included, and returns the path of what they lead to. Absolute links and ".."
// end at the root of fsys. A part that does not exist is taken as it is written,
// so that the result may be made. Errors: [syscall.ELOOP] for more than 255
// links, [syscall.ENOTDIR] for a path through something that is no directory.
func Resolve(fsys FS, name string) (string, error) {
	return resolve(fsys.Lstat, fsys.ReadLink, ".", name, true)
}

// resolve walks name below root one component at a time.
func resolve(lstat func(string) (fs.FileInfo, error), readlink func(string) (string, error), root, name string, last bool) (string, error) {
	cur, rest, links := root, relative(name), 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if cur != root {
				cur, _ = split(cur)
			}
			continue
		}
		next := join(cur, part)
		info, err := lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			cur = next
			continue
		case err != nil:
			return "", fmt.Errorf("resolve %s: %w", absolute(next), err)
		}
		isLink := info.Mode().Type() == fs.ModeSymlink
		if !isLink && !info.IsDir() && hasName(rest) {
			return "", &fs.PathError{Op: "resolve", Path: absolute(next), Err: syscall.ENOTDIR}
		}
		if !isLink || !last && !hasName(rest) {
			cur = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("resolve %s: %w: %w", absolute(relative(name)), syscall.ELOOP, errdefs.ErrInvalidArgument)
		}
		target, err := readlink(next)
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", absolute(next), err)
		}
		if strings.HasPrefix(target, "/") {
			cur = root
		}
		rest = target + "/" + rest
	}
	return cur, nil
}

// hasName reports whether rest leads on to another name.
func hasName(rest string) bool {
	for part := range strings.SplitSeq(rest, "/") {
		if part != "" && part != "." {
			return true
		}
	}
	return false
}

func notExist(op, p string) error {
	return &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist}
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// gone reports whether err says that nothing can be at a path.
func gone(err error) bool { return isNotExist(err) || errors.Is(err, syscall.ENOTDIR) }
