package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/util/archiveutil"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// Names under which the front end asks for the two trees that every build has.
const (
	mainContext = "context"
	dockerfiles = "dockerfile"
)

// maxDockerfile bounds a Dockerfile that comes through a pipe, in bytes: what
// the front end reads of a file.
const maxDockerfile = 16 << 20

// contexts are the trees of a build, by the names of local sources, and the
// front end's options that say so.
type contexts struct {
	store  *store.Store
	lease  *store.Lease
	images *image.Images

	trees   map[string]tree.FS
	options map[string]string
	layouts map[string]image.Place // by the names in options
	stages  map[string]string      // named contexts that are stages, and which
	place   string                 // what the files' digests are remembered by
	closers []io.Closer
}

// openContexts opens what f names. The caller closes the result.
func openContexts(ctx context.Context, i *image.Images, l *store.Lease, f Files) (_ *contexts, err error) {
	c := &contexts{
		store: i.Store, lease: l, images: i, trees: map[string]tree.FS{}, options: map[string]string{},
		layouts: map[string]image.Place{}, stages: map[string]string{},
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	switch {
	case f.Context == "":
		return nil, fmt.Errorf("find build context: no directory given: %w", errdefs.ErrInvalidArgument)
	case f.Context == "-" && f.Dockerfile == "-":
		return nil, fmt.Errorf("find build context: standard input cannot be both the context and the Dockerfile: %w", errdefs.ErrInvalidArgument)
	case f.Context == "-":
		err = c.fromStream(ctx, f)
	case isURL().MatchString(f.Context):
		c.options[mainContext] = f.Context
		if f.Dockerfile != "" {
			c.options["filename"] = f.Dockerfile
		}
	default:
		err = c.fromDir(f)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range sorted(f.Named) {
		if err := c.addNamed(ctx, name, f.Named[name]); err != nil {
			return nil, fmt.Errorf("build context %s: %w", name, err)
		}
	}
	return c, nil
}

// isURL knows the contexts that the front end fetches by itself.
var isURL = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(https?|git|ssh)://|^git@|^github\.com/`)
})

// Close closes the trees.
func (c *contexts) Close() error {
	var errs []error
	for _, closer := range c.closers {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}

// dir opens a directory of the host.
func (c *contexts) dir(path string) (tree.FS, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open build context %s: %w", path, errnoOf(err))
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open build context %s: not a directory: %w", path, errdefs.ErrInvalidArgument)
	}
	t, err := tree.Dir(path, c.store.Scratch())
	if err != nil {
		return nil, err
	}
	if closer, ok := t.(io.Closer); ok {
		c.closers = append(c.closers, closer)
	}
	return t, nil
}

// errnoOf strips the frame that package os puts around an errno.
func errnoOf(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

func (c *contexts) fromDir(f Files) error {
	t, err := c.dir(f.Context)
	if err != nil {
		return err
	}
	c.trees[mainContext] = t
	if c.place, err = filepath.Abs(f.Context); err != nil {
		return err
	}
	switch f.Dockerfile {
	case "":
		c.trees[dockerfiles] = t
		return nil
	case "-":
		return c.dockerfile(f.Stdin)
	}
	// A link that the user names is the user's to follow.
	file := f.Dockerfile
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("open Dockerfile %s: %w", f.Dockerfile, errnoOf(err))
	}
	if c.trees[dockerfiles], err = c.dir(filepath.Dir(file)); err != nil {
		return err
	}
	c.options["filename"] = filepath.Base(file)
	return nil
}

// dockerfile makes r the Dockerfile.
func (c *contexts) dockerfile(r io.Reader) error {
	if r == nil {
		r = strings.NewReader("")
	}
	data, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("read Dockerfile from standard input: %w", err)
	}
	if len(data) > maxDockerfile {
		return fmt.Errorf("read Dockerfile from standard input: over %d MiB: %w", maxDockerfile>>20, errdefs.ErrInvalidArgument)
	}
	edit := tree.Edit(nil)
	if err := edit.Mkfile("Dockerfile", data, tree.MakeOptions{Mode: 0o644}); err != nil {
		return err
	}
	c.closers = append(c.closers, edit)
	c.trees[dockerfiles] = edit.FS()
	return nil
}

// fromStream takes the context, or only the Dockerfile, from standard input.
func (c *contexts) fromStream(ctx context.Context, f Files) error {
	in := f.Stdin
	if in == nil {
		in = strings.NewReader("")
	}
	stream := bufio.NewReaderSize(in, 64<<10)
	head, err := stream.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read build context from standard input: %w", err)
	}
	if !archiveutil.IsArchive(head) {
		c.trees[mainContext] = tree.Empty()
		return c.dockerfile(stream)
	}
	t, err := c.archive(ctx, stream)
	if err != nil {
		return fmt.Errorf("read build context from standard input: %w", err)
	}
	c.trees[mainContext], c.trees[dockerfiles] = t, t
	if f.Dockerfile != "" {
		c.options["filename"] = filepath.ToSlash(f.Dockerfile)
	}
	return nil
}

// archive takes a tar into the store, as a layer that only the lease keeps,
// and shows it as a tree.
func (c *contexts) archive(ctx context.Context, r io.Reader) (tree.FS, error) {
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	ingest, err := c.store.IngestLayer(c.lease)
	if err != nil {
		return nil, err
	}
	defer ingest.Close()
	if _, err := io.Copy(ingest, plain); err != nil {
		return nil, err
	}
	d, _, err := ingest.Commit(ctx, "")
	if err != nil {
		return nil, err
	}
	l, err := c.store.Layer(d)
	if err != nil {
		return nil, err
	}
	c.closers = append(c.closers, l)
	return tree.Stack(l), nil
}
