package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// Tar writes fsys to w as a tar.
func Tar(ctx context.Context, fsys tree.FS, w io.Writer) error {
	lw := layer.NewWriter(w)
	if err := tree.Archive(ctx, fsys, lw); err != nil {
		return err
	}
	return lw.Close()
}

// Dir writes the files of fsys into dir, which is made if it is missing. They
// belong to the caller; modes and times are those of the tree. What has the
// name of a file is replaced, other files stay. Nothing outside dir is
// written, whatever links it holds; devices and sockets are left out.
func Dir(ctx context.Context, fsys tree.FS, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := dirWriter{fsys: fsys, root: root}
	return w.children(ctx, ".")
}

type dirWriter struct {
	fsys tree.FS
	root *os.Root
}

func (w *dirWriter) children(ctx context.Context, dir string) error {
	entries, err := w.fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		if err := w.write(ctx, name); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func (w *dirWriter) write(ctx context.Context, name string) error {
	info, err := w.fsys.Lstat(name)
	if err != nil {
		return err
	}
	have, err := w.root.Lstat(name)
	if err == nil && !(have.IsDir() && info.IsDir()) {
		err = w.root.RemoveAll(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return w.dir(ctx, name, info)
	case fs.ModeSymlink:
		target, err := w.fsys.ReadLink(name)
		if err != nil {
			return err
		}
		return w.root.Symlink(target, name)
	case 0:
		return w.file(name, info)
	}
	return nil
}

func (w *dirWriter) dir(ctx context.Context, name string, info fs.FileInfo) error {
	if err := w.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := w.children(ctx, name); err != nil {
		return err
	}
	return w.finish(name, info)
}

func (w *dirWriter) file(name string, info fs.FileInfo) (err error) {
	in, err := w.fsys.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := w.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return w.finish(name, info)
}

func (w *dirWriter) finish(name string, info fs.FileInfo) error {
	if err := w.root.Chmod(name, info.Mode()); err != nil {
		return err
	}
	return w.root.Chtimes(name, info.ModTime(), info.ModTime())
}
