package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/shaleproject/shale/internal/build/limit"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// Reference is a solved graph, as the front end sees it.
type Reference struct {
	*ref.Ref
	def   *pb.Definition
	guard *limit.Guard
}

var _ client.Reference = (*Reference)(nil)

// Definition is the graph that r was solved from.
func (r *Reference) Definition() *pb.Definition { return r.def }

// ToState makes the graph a part of another one.
func (r *Reference) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

// Evaluate has nothing to do: what was solved is there.
func (r *Reference) Evaluate(context.Context) error { return nil }

// ReadFile reads a file, or the part of it that req says. What is no ignore
// file is a Dockerfile.
func (r *Reference) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	data, err := r.read(req)
	if err == nil && !strings.HasSuffix(req.Filename, ".dockerignore") {
		err = r.guard.Dockerfile(path.Base(req.Filename), data)
	}
	return data, err
}

func (r *Reference) read(req client.ReadRequest) ([]byte, error) {
	fsys, name, err := r.resolve(req.Filename)
	if err != nil {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if req.Range == nil {
		return io.ReadAll(f)
	}
	if _, err := io.CopyN(io.Discard, f, int64(req.Range.Offset)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, int64(req.Range.Length)))
}

// ReadDir lists a directory.
func (r *Reference) ReadDir(_ context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	fsys, name, err := r.resolve(req.Path)
	if err != nil {
		return nil, err
	}
	entries, err := fsys.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var stats []*fstypes.Stat
	for _, e := range entries {
		if req.IncludePattern != "" {
			if ok, err := path.Match(req.IncludePattern, e.Name()); err != nil || !ok {
				continue
			}
		}
		st, err := stat(fsys, path.Join(name, e.Name()))
		if err != nil {
			return nil, err
		}
		stats = append(stats, st)
	}
	return stats, nil
}

// StatFile describes a file; links are followed.
func (r *Reference) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	fsys, name, err := r.resolve(req.Path)
	if err != nil {
		return nil, err
	}
	return stat(fsys, name)
}

func (r *Reference) resolve(name string) (tree.FS, string, error) {
	fsys, err := r.FS()
	if err != nil {
		return nil, "", err
	}
	name, err = tree.Resolve(fsys, name)
	return fsys, name, err
}

func stat(fsys tree.FS, name string) (*fstypes.Stat, error) {
	info, err := fsys.Lstat(name)
	if err != nil {
		return nil, err
	}
	st := &fstypes.Stat{
		Path:    info.Name(),
		Mode:    uint32(info.Mode()), // the numbers of fs.FileMode: fsutil's own convention
		Size:    info.Size(),
		ModTime: info.ModTime().UnixNano(),
	}
	if s, ok := info.Sys().(*layer.Stat); ok {
		st.Uid, st.Gid, st.Xattrs = s.UID, s.GID, s.Xattrs
		st.Devmajor, st.Devminor = int64(s.Rdev>>8&0xfff), int64(s.Rdev&0xff)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if st.Linkname, err = fsys.ReadLink(name); err != nil {
			return nil, fmt.Errorf("read link %s: %w", name, err)
		}
	}
	return st, nil
}
