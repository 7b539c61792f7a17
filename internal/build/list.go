package build

import (
	"context"
	"fmt"
	"io/fs"
	"path"

	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/tree"
)

// CallListContext lists what the build would see of its context; see
// [Result.Context].
const CallListContext = "shale.list-context"

// ContextFile is a file of a build context, or a directory.
type ContextFile struct {
	Path   string
	Mode   fs.FileMode
	Size   int64  // bytes of a regular file
	Target string // of a symbolic link
	Empty  bool   // a directory in which the build sees nothing
}

// listContext lists the context of the front end c, without its root,
// directories before what they hold.
func listContext(ctx context.Context, c *gateway.Client) (Result, error) {
	fsys, err := c.MainContext(ctx)
	if err != nil {
		return Result{}, err
	}
	l := lister{ctx: ctx, fsys: fsys, list: []ContextFile{}}
	if _, err := l.dir("."); err != nil {
		return Result{}, fmt.Errorf("list build context: %w", err)
	}
	return Result{Context: l.list}, nil
}

type lister struct {
	ctx  context.Context //nolint:containedctx // the lister lives as long as one call
	fsys tree.FS
	list []ContextFile
}

// dir lists what is below the directory called name and tells whether that is
// nothing.
func (l *lister) dir(name string) (empty bool, err error) {
	if err := context.Cause(l.ctx); err != nil {
		return false, err
	}
	entries, err := l.fsys.ReadDir(name)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return false, err
		}
		f := ContextFile{Path: path.Join(name, e.Name()), Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			f.Size = info.Size()
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Target, err = l.fsys.ReadLink(f.Path); err != nil {
				return false, err
			}
		}
		at := len(l.list)
		l.list = append(l.list, f)
		if info.IsDir() {
			if l.list[at].Empty, err = l.dir(f.Path); err != nil {
				return false, err
			}
		}
	}
	return len(entries) == 0, err
}
