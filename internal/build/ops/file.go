package ops

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// file edits a tree: COPY, ADD, WORKDIR and inline files. Its actions read
// refs and each other's results; an action that has an output, or whose
// result more than one reads, ends a layer.
type file struct {
	tools *Tools
	name  string
	op    *pb.FileOp
	key   []byte
	views map[int]*cache.View
}

func newFile(t *Tools, v *solver.Vertex, op *pb.FileOp) (*file, error) {
	description, err := op.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("describe %q: %w", v.Name, err)
	}
	return &file{
		tools: t, name: v.Name, op: op,
		key:   t.key("file", description),
		views: fileViews(op, len(v.Inputs)),
	}, nil
}

func (op *file) Key() []byte            { return op.key }
func (op *file) Sees(i int) *cache.View { return op.views[i] }

// fileViews says which parts of its n inputs op reads. An input that op
// edits counts as a whole.
func fileViews(op *pb.FileOp, n int) map[int]*cache.View {
	views, edited := map[int]*cache.View{}, map[int64]bool{}
	add := func(i int64, p cache.Part) {
		if i < 0 || i >= int64(n) {
			return // the result of another action
		}
		if views[int(i)] == nil {
			views[int(i)] = &cache.View{}
		}
		views[int(i)].Add(p)
	}
	for _, action := range op.Actions {
		edited[action.Input] = true
		if c := action.GetCopy(); c != nil {
			add(action.SecondaryInput, cache.Part{Path: c.Src, Select: tree.DigestOptions{
				FollowSymlink: c.FollowSymlink,
				Wildcard:      c.AllowWildcard,
				DirContents:   c.DirCopyContents,
				Include:       c.IncludePatterns,
				Exclude:       c.ExcludePatterns,
				Required:      c.RequiredPaths,
			}, Optional: c.AllowWildcard && c.AllowEmptyWildcard && isPattern(c.Src)})
		}
		owner := ownerOf(action)
		for _, u := range []struct {
			*pb.UserOpt
			file string
		}{{owner.GetUser(), "/etc/passwd"}, {owner.GetGroup(), "/etc/group"}} {
			if named := u.GetByName(); named != nil {
				add(named.Input, cache.Part{Path: u.file, Select: tree.DigestOptions{FollowSymlink: true}, Optional: true})
			}
		}
	}
	for i := range edited {
		delete(views, int(i))
	}
	return views
}

// isPattern tells whether path.Match can take name for more than one path.
func isPattern(name string) bool {
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

func ownerOf(action *pb.FileAction) *pb.ChownOpt {
	switch a := action.Action.(type) {
	case *pb.FileAction_Copy:
		return a.Copy.Owner
	case *pb.FileAction_Mkdir:
		return a.Mkdir.Owner
	case *pb.FileAction_Mkfile:
		return a.Mkfile.Owner
	case *pb.FileAction_Symlink:
		return a.Symlink.Owner
	}
	return nil
}

// Run carries out the actions in their order.
func (op *file) Run(ctx context.Context, in []*ref.Ref, step *solver.Step) ([]*ref.Ref, error) {
	e, err := op.newEditor(in, step)
	if err != nil {
		return nil, err
	}
	defer e.close()
	for i, action := range op.op.Actions {
		if err := e.run(ctx, i, action); err != nil {
			return nil, err
		}
	}
	return e.outputs, nil
}

// editor holds the results of the actions so far, numbered as actions name
// them: first the inputs, then one for each action.
type editor struct {
	*file
	step    *solver.Step
	in      int
	states  []state
	readers map[int]int // how many actions read a result
	outputs []*ref.Ref
}

// state is either a ref or edits that have not become a layer yet.
type state struct {
	ref  *ref.Ref
	base *ref.Ref
	edit *tree.Changes
}

func (s state) fs() (tree.FS, error) {
	if s.edit != nil {
		return s.edit.FS(), nil
	}
	return s.ref.FS()
}

func (op *file) newEditor(in []*ref.Ref, step *solver.Step) (*editor, error) {
	e := &editor{file: op, step: step, in: len(in), readers: map[int]int{}}
	for _, r := range in {
		e.states = append(e.states, state{ref: r})
	}
	for i, action := range op.op.Actions {
		for _, index := range []int64{action.Input, action.SecondaryInput} {
			if index < int64(pb.Empty) || index >= int64(len(in)+i) {
				return nil, badIndex(index, len(in)+i)
			}
			e.readers[int(index)]++
		}
		if action.Output >= int64(len(op.op.Actions)) {
			return nil, badIndex(action.Output, len(op.op.Actions))
		}
		for int64(len(e.outputs)) <= action.Output {
			e.outputs = append(e.outputs, nil)
		}
	}
	return e, nil
}

func (e *editor) close() {
	for _, s := range e.states {
		if s.edit != nil {
			s.edit.Close()
		}
	}
}

func (e *editor) state(index int64) state {
	if index == int64(pb.Empty) {
		return state{ref: e.tools.Pool.Stack(nil)}
	}
	return e.states[index]
}

// run carries out action number i on a state that it takes over or begins.
func (e *editor) run(ctx context.Context, i int, action *pb.FileAction) error {
	from := e.state(action.Input)
	if from.edit == nil {
		base, err := from.ref.FS()
		if err != nil {
			return err
		}
		from = state{base: from.ref, edit: tree.Edit(base)}
		from.edit.Now, from.edit.Latest, from.edit.Temp = e.tools.now(), e.tools.latest(), e.tools.Store.Scratch()
	} else {
		e.states[action.Input] = state{} // taken over: nobody else reads it
	}
	e.states = append(e.states, from)
	if err := e.edit(ctx, from.edit, action); err != nil {
		return err
	}
	if action.Output < 0 && e.readers[e.in+i] == 1 && !e.readAside(e.in+i) {
		return nil
	}
	r, err := e.commit(ctx, from)
	if err != nil {
		return err
	}
	from.edit.Close()
	e.states[e.in+i] = state{ref: r}
	if action.Output >= 0 {
		e.outputs[action.Output] = r
	}
	return nil
}

// readAside tells whether an action copies from result index, which then may
// not be edited any more.
func (e *editor) readAside(index int) bool {
	for _, action := range e.op.Actions {
		if action.SecondaryInput == int64(index) {
			return true
		}
		owner := ownerOf(action)
		for _, u := range []*pb.UserOpt{owner.GetUser(), owner.GetGroup()} {
			if named := u.GetByName(); named != nil && named.Input == int64(index) {
				return true
			}
		}
	}
	return false
}

// commit writes what s has changed as a layer upon its base.
func (e *editor) commit(ctx context.Context, s state) (*ref.Ref, error) {
	below, err := s.base.Layers(ctx)
	if err != nil {
		return nil, err
	}
	l, err := e.tools.Pool.Write(ctx, ref.Layer{Created: e.tools.now(), By: e.name}, func(w *layer.Writer) error {
		return s.edit.WriteLayer(ctx, w)
	})
	if err != nil {
		return nil, err
	}
	return e.tools.Pool.Stack(append(below[:len(below):len(below)], l)), nil
}

func (e *editor) edit(ctx context.Context, c *tree.Changes, action *pb.FileAction) error {
	owner, err := e.owner(ownerOf(action))
	if err != nil {
		return err
	}
	switch a := action.Action.(type) {
	case *pb.FileAction_Copy:
		src, err := e.state(action.SecondaryInput).fs()
		if err != nil {
			return err
		}
		return c.Copy(ctx, src, a.Copy.Src, a.Copy.Dest, copyOptions(a.Copy, owner))
	case *pb.FileAction_Mkdir:
		return c.Mkdir(a.Mkdir.Path, tree.MakeOptions{
			Mode: fs.FileMode(a.Mkdir.Mode), Owner: owner, Time: timeOf(a.Mkdir.Timestamp), Parents: a.Mkdir.MakeParents,
		})
	case *pb.FileAction_Mkfile:
		return c.Mkfile(a.Mkfile.Path, a.Mkfile.Data, tree.MakeOptions{
			Mode: fs.FileMode(a.Mkfile.Mode), Owner: owner, Time: timeOf(a.Mkfile.Timestamp),
		})
	case *pb.FileAction_Symlink:
		return c.Symlink(a.Symlink.Oldpath, a.Symlink.Newpath, tree.MakeOptions{Owner: owner, Time: timeOf(a.Symlink.Timestamp)})
	case *pb.FileAction_Rm:
		return c.Remove(a.Rm.Path, tree.RemoveOptions{AllowNotFound: a.Rm.AllowNotFound, Wildcard: a.Rm.AllowWildcard})
	}
	return fmt.Errorf("edit files: action %T: %w", action.Action, errdefs.ErrNotImplemented)
}

func copyOptions(c *pb.FileActionCopy, owner *tree.Owner) tree.CopyOptions {
	mode := c.ModeStr
	if mode == "" && c.Mode != -1 {
		mode = strconv.FormatInt(int64(c.Mode), 8)
	}
	return tree.CopyOptions{
		Owner: owner, Mode: mode, Time: timeOf(c.Timestamp),
		FollowSymlink:      c.FollowSymlink,
		DirContents:        c.DirCopyContents,
		Wildcard:           c.AllowWildcard,
		AllowEmptyWildcard: c.AllowEmptyWildcard,
		CreateDestPath:     c.CreateDestPath,
		AlwaysReplace:      c.AlwaysReplaceExistingDestPaths,
		Unpack:             c.AttemptUnpackDockerCompatibility,
		Include:            c.IncludePatterns,
		Exclude:            c.ExcludePatterns,
		Required:           c.RequiredPaths,
	}
}

// timeOf reads a timestamp in nanoseconds; -1 is none.
func timeOf(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(0, ns).UTC()
	return &t
}

// owner reads o as BuildKit does (solver/llbsolver/ops, readUser): a user
// brings his group unless there is one, and a name that the image does not
// have means root, which the log then says.
func (e *editor) owner(o *pb.ChownOpt) (*tree.Owner, error) {
	if o == nil {
		return nil, nil
	}
	var owner tree.Owner
	switch u := o.GetUser().GetUser().(type) {
	case *pb.UserOpt_ByID:
		owner = tree.Owner{UID: u.ByID, GID: u.ByID}
	case *pb.UserOpt_ByName:
		found, err := e.lookUp(u.ByName, u.ByName.GetName())
		if err != nil {
			return nil, err
		}
		owner = found
	}
	switch g := o.GetGroup().GetUser().(type) {
	case *pb.UserOpt_ByID:
		owner.GID = g.ByID
	case *pb.UserOpt_ByName:
		found, err := e.lookUp(g.ByName, "0:"+g.ByName.GetName())
		if err != nil {
			return nil, err
		}
		owner.GID = found.GID
	}
	return &owner, nil
}

func (e *editor) lookUp(named *pb.NamedUserOpt, spec string) (tree.Owner, error) {
	if named == nil || named.Input < 0 || named.Input >= int64(len(e.states)) {
		return tree.Owner{}, badIndex(named.GetInput(), len(e.states))
	}
	fsys, err := e.states[named.Input].fs()
	if err != nil {
		return tree.Owner{}, err
	}
	owner, err := tree.LookupUser(fsys, spec)
	if errdefs.IsNotFound(err) {
		fmt.Fprintf(e.step.Log(solver.Stderr), "warning: %v: root is taken instead\n", err)
		return owner, nil
	}
	return owner, err
}
