package tree

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// CopyOptions are the fields of BuildKit's FileActionCopy.
type CopyOptions struct {
	Owner *Owner     // of whatever is copied or made; nil keeps the source's
	Mode  string     // as chmod takes it, octal or symbolic; "" keeps the source's
	Time  *time.Time // nil keeps the source's

	FollowSymlink      bool // if the source is a symbolic link, copy what it leads to
	DirContents        bool // copy what a directory holds, not the directory
	Wildcard           bool // the source is a pattern of path.Match
	AllowEmptyWildcard bool // a pattern may match nothing
	CreateDestPath     bool // make the directories that lead to the destination
	AlwaysReplace      bool // a file may take the place of a directory and the other way round
	Unpack             bool // unpack archives, which are known by their content

	Include  []string // only what matches one of them, relative to the source
	Exclude  []string // nothing that matches one of them
	Required []string // absolute paths in the source that must be among what is copied
}

// Copy copies srcPath of src to dst, which has the meaning of the destination of
// a COPY instruction: with a slash at the end it is a directory. The rules are
// those of BuildKit's file operation and of fsutil's copy below it:
//
//   - what is copied into an existing directory takes the name of the source,
//     except for the contents of a directory;
//   - directories merge, and one that exists takes over the metadata of the
//     source, except for the destination itself;
//   - symbolic links that lead to the destination are followed inside the tree,
//     those below it are not;
//   - a file never replaces a directory nor a directory a file, unless
//     AlwaysReplace says so;
//   - hard links within what is copied stay hard links; sockets become empty
//     files; extended attributes are added to those of a directory.
func (c *Changes) Copy(ctx context.Context, src FS, srcPath, dst string, o CopyOptions) error {
	c.begin()
	if !o.CreateDestPath {
		if err := c.needParent(dst); err != nil {
			return fmt.Errorf("copy to %s: %w", dst, classed(err))
		}
	}
	name := absolute(relative(srcPath))
	sources := []string{srcPath}
	if o.Wildcard {
		var err error
		if sources, err = matches(src, srcPath, o.FollowSymlink); err != nil {
			return fmt.Errorf("copy %s: %w", name, classed(err))
		}
		if len(sources) == 0 && !o.AllowEmptyWildcard {
			return fmt.Errorf("copy %s: %w", name, errdefs.ErrNotFound)
		}
	}
	required := required(o.Required)
	for _, source := range sources {
		cp, err := newCopier(c, src, o, required)
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		if err := cp.copySource(ctx, source, dst); err != nil {
			return fmt.Errorf("copy %s: %w", absolute(relative(source)), classed(err))
		}
	}
	return required.missing()
}

// needParent fails unless the directory that dst goes into exists.
func (c *Changes) needParent(dst string) error {
	real, err := c.resolve(dst)
	if err != nil {
		return err
	}
	parent, _ := split(real)
	_, err = c.view().Lstat(parent)
	return err
}

// copier copies one source. Hard links are known by the inode of the source.
type copier struct {
	*Changes
	src      FS
	o        CopyOptions
	mode     modeChange
	patterns patterns
	required requirements
	links    inodeTable // inodes of the source, and those of their copies
	parents  []*parent
}

// parent is a directory of the source on the way to the file at hand. As long
// as nothing below it matched an include pattern it is not made.
type parent struct {
	src  string
	info fs.FileInfo
	at   *target
}

// target is a path of the destination. No part of it is a symbolic link.
type target struct {
	up   *target
	name string
	path string
	dir  *node // set once the path is known to be a directory
}

func newCopier(c *Changes, src FS, o CopyOptions, required requirements) (*copier, error) {
	cp := &copier{Changes: c, src: src, o: o, required: required}
	var err error
	if o.Mode != "" {
		if cp.mode, err = parseMode(o.Mode); err != nil {
			return nil, err
		}
	}
	cp.patterns, err = newPatterns(o.Include, o.Exclude)
	return cp, err
}

// dirMode is the mode of directories that are made on the way to the
// destination. BuildKit applies octal modes to them and symbolic ones not.
func (cp *copier) dirMode() fs.FileMode {
	if cp.o.Mode != "" && cp.o.Mode[0] >= '0' && cp.o.Mode[0] <= '9' {
		return cp.mode.apply(0).Perm()
	}
	return 0o755
}

func (cp *copier) mkdirs(path string) (*node, error) {
	return cp.mkdirAll(path, cp.dirMode(), cp.o.Owner, cp.o.Time)
}

// copySource decides what dst means for source, and copies.
func (cp *copier) copySource(ctx context.Context, source, dst string) error {
	if cp.o.Unpack {
		done, err := cp.unpack(ctx, source, dst)
		if done || err != nil {
			return err
		}
	}
	ensure := dst
	if last := dst[strings.LastIndexByte(dst, '/')+1:]; last != "" && last != "." {
		ensure, _ = split(relative(dst))
	}
	real, err := cp.resolve(ensure)
	if err != nil {
		return err
	}
	if _, err := cp.mkdirs(real); err != nil {
		return err
	}
	if real, err = cp.resolve(dst); err != nil {
		return err
	}
	from, err := resolve(cp.src.Lstat, cp.src.ReadLink, ".", source, cp.o.FollowSymlink)
	if err != nil {
		return err
	}
	info, err := cp.src.Lstat(from)
	if err != nil {
		return err
	}
	name := path.Base(absolute(relative(source)))
	if strings.HasSuffix(source, "/.") {
		name = "."
	}
	at, err := cp.destination(real, name, info)
	if err != nil {
		return err
	}
	return cp.copy(ctx, from, info, "", at, matched{in: true})
}

// destination returns where a source called name goes if the instruction says
// dst, and makes the directory that it goes into.
func (cp *copier) destination(dst, name string, info fs.FileInfo) (*target, error) {
	existing, err := cp.view().Lstat(dst)
	if err != nil && !isNotExist(err) {
		return nil, err
	}
	contents := cp.o.DirContents && info.IsDir()
	if existing != nil && (info.IsDir() && !contents || !info.IsDir() && existing.IsDir()) {
		if name != "/" && name != "." {
			dst = join(dst, name)
		}
	}
	dir, last := split(dst)
	if contents && existing == nil {
		if _, err := cp.mkdirs(dst); err != nil {
			return nil, err
		}
	}
	parent, err := cp.mkdirs(dir)
	if err != nil {
		return nil, err
	}
	if dst == "." {
		return &target{path: ".", dir: cp.root}, nil
	}
	return &target{up: &target{path: dir, dir: parent}, name: last, path: dst}, nil
}

// at is what the destination has at t.
func (cp *copier) existing(t *target) (child, error) {
	if t.up == nil {
		info, err := cp.view().Lstat(".")
		return child{cp.root, info}, err
	}
	return cp.child(t.up.dir, t.up.path, t.name)
}

// copy copies the file at src, which is called rel below the source, to t. up is
// what the patterns say of its directory. Whatever lies below the source, other
// than the source itself, gives its metadata to a directory that exists.
func (cp *copier) copy(ctx context.Context, src string, info fs.FileInfo, rel string, t *target, up matched) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, nested := up, rel != ""
	if nested {
		var err error
		if m, err = cp.patterns.match(rel, up); err != nil {
			return err
		}
	}
	if !info.IsDir() {
		if !m.selected() {
			return nil
		}
		return cp.copyFile(src, info, t, nested)
	}
	if m.selected() {
		if err := cp.copyDir(src, info, t, nested); err != nil {
			return err
		}
	} else if !cp.patterns.below(rel, m) {
		return nil
	}
	cp.parents = append(cp.parents, &parent{src, info, t})
	defer func() { cp.parents = cp.parents[:len(cp.parents)-1] }()

	err := eachEntry(cp.src, src, func(e fs.DirEntry) error {
		kid, err := e.Info()
		if err != nil {
			return err
		}
		to := &target{up: t, name: e.Name(), path: join(t.path, e.Name())}
		return cp.copy(ctx, join(src, e.Name()), kid, join(cmp.Or(rel, "."), e.Name()), to, m)
	})
	if err != nil {
		return err
	}
	if t.dir != nil {
		cp.pack(t.dir)
	}
	return nil
}
