package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/tree"
)

// toDir writes the files of the result into the directory that o names.
func (j *job) toDir(ctx context.Context, o Output, b *built) error {
	step := j.status.Step("exporting to client directory")
	err := j.files(ctx, o, b, func(fsys tree.FS) error { return export.Dir(ctx, fsys, o.Dir) })
	if err != nil {
		err = fmt.Errorf("export to %s: %w", o.Dir, err)
	}
	step.Done(err)
	return err
}

// toTar writes them as a tar.
func (j *job) toTar(ctx context.Context, o Output, b *built) error {
	step := j.status.Step("exporting to client tarball")
	err := j.files(ctx, o, b, func(fsys tree.FS) error { return export.Tar(ctx, fsys, o.To) })
	if err != nil {
		err = fmt.Errorf("export to tar: %w", err)
	}
	step.Done(err)
	return err
}

// files hands write one tree with the files of all platforms, and what is to
// be said of them.
func (j *job) files(ctx context.Context, o Output, b *built, write func(tree.FS) error) error {
	split := b.several
	if o.Split != nil {
		split = *o.Split
	}
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			c.Close() // trees that were only read
		}
	}()
	trees := make([]tree.FS, len(b.images))
	for n, img := range b.images {
		fsys, err := img.ref.FS()
		if err != nil {
			return err
		}
		if j.req.Attest.any() {
			suffix := ""
			if b.several && !split {
				suffix = "." + img.dir()
			}
			more, err := j.attestFiles(ctx, img, fsys, suffix)
			if err != nil {
				return err
			}
			closers = append(closers, more)
			fsys = more.FS()
		}
		trees[n] = fsys
	}
	if !split && len(trees) == 1 {
		return write(trees[0])
	}
	all := tree.Edit(nil)
	closers = append(closers, all)
	if j.epoch != nil {
		all.Now = *j.epoch
	}
	seen := map[string]string{}
	for n, img := range b.images {
		dest := "/" + img.dir() + "/"
		if !split {
			dest = "/"
			if err := collide(trees[n], ".", img.id, seen); err != nil {
				return err
			}
		}
		err := all.Copy(ctx, trees[n], "/", dest, tree.CopyOptions{DirContents: true, CreateDestPath: true})
		if err != nil {
			return err
		}
	}
	return write(all.FS())
}

// collide notes the files of a platform, and refuses those that another one
// has, too.
func collide(fsys tree.FS, dir, platform string, seen map[string]string) error {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if err := collide(fsys, name, platform, seen); err != nil {
				return err
			}
			continue
		}
		if other, ok := seen[name]; ok {
			return fmt.Errorf("cannot overwrite %s from %s with %s when split option is disabled: %w", name, other, platform, errdefs.ErrAlreadyExists)
		}
		seen[name] = platform
	}
	return nil
}

// dir is the directory of a platform's files, as BuildKit calls it.
func (b builtImage) dir() string {
	name := strings.NewReplacer("/", "_", `\`, "_", ":", "_").Replace(b.id)
	if name == "." || name == ".." {
		return strings.Repeat("_", len(name))
	}
	return name
}
