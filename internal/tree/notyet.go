package tree

import (
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
)

// notYet is a tree that cannot be read.
type notYet struct{ what string }

func (n notYet) err() error { return fmt.Errorf("%s: %w", n.what, errdefs.ErrNotImplemented) }

func (n notYet) Open(string) (fs.File, error)          { return nil, n.err() }
func (n notYet) ReadDir(string) ([]fs.DirEntry, error) { return nil, n.err() }
func (n notYet) ReadLink(string) (string, error)       { return "", n.err() }
func (n notYet) Lstat(string) (fs.FileInfo, error)     { return nil, n.err() }
