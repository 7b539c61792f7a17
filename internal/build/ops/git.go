package ops

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// git is a commit of a remote repository: ADD of a repository, or a context
// that is one. What the server says is a stranger's word: nothing in it runs,
// and no link leads out of the checkout. The files have the time of the
// commit.
type git struct {
	tools      *Tools
	identifier string // as the graph has it
	remote     string // without a password
	user       *url.Userinfo
	ref        string // empty means the server's HEAD
	subdir     string
	keepGit    bool
	submodules bool
	checksum   string // a commit, or the beginning of one
	attrs      map[string]string
}

func newGit(t *Tools, op *pb.SourceOp) (*git, error) {
	id := strings.TrimPrefix(op.Identifier, "git://")
	id, fragment, _ := strings.Cut(id, "#")
	g := &git{tools: t, identifier: op.Identifier, remote: op.Attrs[pb.AttrFullRemoteURL], attrs: op.Attrs}
	if g.remote == "" {
		g.remote = "https://" + id
	}
	g.ref, g.subdir, _ = strings.Cut(fragment, ":")
	g.keepGit = op.Attrs[pb.AttrKeepGitDir] == "true"
	g.submodules = op.Attrs[pb.AttrGitSkipSubmodules] != "true"
	g.checksum = op.Attrs[pb.AttrGitChecksum]
	if u, err := url.Parse(g.remote); err == nil && u.User != nil && u.Scheme != "ssh" {
		g.user, u.User = u.User, nil
		g.remote = u.String()
	}
	for _, attr := range []string{pb.AttrGitSignatureVerifyPubKey, pb.AttrGitBundle, pb.AttrGitCheckoutBundle} {
		if op.Attrs[attr] != "" {
			return nil, fmt.Errorf("read %s: %s: %w", g, attr, errdefs.ErrNotImplemented)
		}
	}
	if err := checkRef(g.ref); err != nil {
		return nil, fmt.Errorf("read %s: %w", g, err)
	}
	return g, nil
}

// checkRef refuses what git would take for something other than a name: an
// option, a refspec, an expression (git-check-ref-format(1)).
func checkRef(name string) error {
	if strings.HasPrefix(name, "-") || strings.HasPrefix(name, "+") || strings.Contains(name, "..") ||
		strings.ContainsAny(name, " ~^:?*[\\") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("reference %q: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// String names the repository for people, as a Dockerfile does.
func (op *git) String() string {
	name := op.remote
	if op.ref != "" || op.subdir != "" {
		name += "#" + op.ref
	}
	if op.subdir != "" {
		name += ":" + op.subdir
	}
	return name
}

// isCommit tells whether s is the whole name of a commit.
func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// Key is empty if only the server knows which commit is meant.
func (op *git) Key() []byte {
	commit := op.ref
	if !isCommit(commit) {
		commit = op.checksum
	}
	if !isCommit(commit) {
		return nil
	}
	return op.tools.key("git", fmt.Appendf(nil, "%s\x00%s\x00%s\x00%t\x00%t", op.remote, commit, op.subdir, op.keepGit, op.submodules))
}

func (op *git) Sees(int) *cache.View { return nil }

func (op *git) Run(ctx context.Context, _ []*ref.Ref, _ *solver.Step) ([]*ref.Ref, error) {
	dir, err := op.tools.Lease.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	at, err := op.checkOut(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", op, err)
	}
	l, err := op.layer(ctx, filepath.Join(dir, "checkout"), at)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", op, err)
	}
	return []*ref.Ref{op.tools.Pool.Stack([]ref.Layer{l})}, nil
}

// checkOut fetches the commit and writes its files to dir/checkout. It returns
// the time of the commit.
func (op *git) checkOut(ctx context.Context, dir string) (time.Time, error) {
	g, err := op.command(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer g.close()
	if _, err := g.run(ctx, "init", "--quiet", "--template=", "--initial-branch=main", "."); err != nil {
		return time.Time{}, err
	}
	// Submodules may be named relative to it.
	if _, err := g.run(ctx, "config", "remote.origin.url", op.remote); err != nil {
		return time.Time{}, err
	}
	if err := op.fetch(ctx, g); err != nil {
		return time.Time{}, err
	}
	commit, err := g.run(ctx, "rev-parse", "--verify", "FETCH_HEAD^{commit}")
	if err != nil {
		return time.Time{}, err
	}
	tag, err := g.run(ctx, "rev-parse", "--verify", "FETCH_HEAD")
	if err != nil {
		return time.Time{}, err
	}
	if !strings.HasPrefix(commit, op.checksum) && !strings.HasPrefix(tag, op.checksum) {
		return time.Time{}, fmt.Errorf("it is commit %s, not %s: %w", commit, op.checksum, errdefs.ErrFailedPrecondition)
	}
	op.tools.found(op.identifier, commit)
	if _, err := g.run(ctx, "checkout", "--quiet", "--force", "--detach", commit); err != nil {
		return time.Time{}, err
	}
	if _, err := os.Lstat(filepath.Join(g.dir, ".gitmodules")); err == nil && op.submodules {
		if _, err := g.run(ctx, "submodule", "update", "--quiet", "--init", "--recursive", shallow); err != nil {
			return time.Time{}, err
		}
	}
	text, err := g.run(ctx, "show", "--no-patch", "--format=%ct", commit)
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	at := time.Unix(seconds, 0).UTC()
	op.tools.dated(op.identifier, at)
	return at, err
}

// fetch gets the commit, alone where the server allows that. If the server
// has sent git elsewhere, git has not followed, and is told where to go.
func (op *git) fetch(ctx context.Context, g *gitCommand) error {
	err := op.fetchFrom(ctx, g, op.remote)
	if err == nil || op.authorization() == "" {
		return err
	}
	if to := op.redirected(ctx); to != "" {
		return op.fetchFrom(ctx, g, to)
	}
	return err
}

// fetchFrom gets the commit from remote. Not every server hands out a commit
// by name: then everything is fetched and it is looked for.
func (op *git) fetchFrom(ctx context.Context, g *gitCommand, remote string) error {
	name := op.ref
	if name == "" {
		name = "HEAD"
	}
	_, err := g.run(ctx, "fetch", "--quiet", "--no-tags", shallow, "--", remote, name)
	if err == nil || !isCommit(name) {
		return err
	}
	if _, err := g.run(ctx, "fetch", "--quiet", "--tags", "--", remote, "+refs/heads/*:refs/remotes/origin/*"); err != nil {
		return err
	}
	_, err = g.run(ctx, "fetch", "--quiet", ".", name)
	return err
}

// layer writes the checkout, or the part of it that is wanted, as a layer.
// The part is found within the checkout, whatever links it holds.
func (op *git) layer(ctx context.Context, checkout string, at time.Time) (ref.Layer, error) {
	fsys, err := tree.Dir(checkout, op.tools.Store.Scratch())
	if err != nil {
		return ref.Layer{}, err
	}
	if c, ok := fsys.(interface{ Close() error }); ok {
		defer c.Close()
	}
	part, err := tree.Resolve(fsys, op.subdir)
	if err != nil {
		return ref.Layer{}, err
	}
	if info, err := fsys.Lstat(part); err != nil || !info.IsDir() || part == ".git" || strings.HasPrefix(part, ".git/") {
		return ref.Layer{}, fmt.Errorf("directory %q: %w", op.subdir, errdefs.ErrNotFound)
	}
	o := tree.CopyOptions{DirContents: true, Time: &at, Mode: "u=rwX,go=rX"}
	if !op.keepGit {
		o.Exclude = []string{"**/.git"}
	}
	edit := tree.Edit(nil)
	defer edit.Close()
	edit.Now, edit.Latest, edit.Temp = at, op.tools.latest(), op.tools.Store.Scratch()
	if err := edit.Copy(ctx, fsys, path.Join("/", part), "/", o); err != nil {
		return ref.Layer{}, err
	}
	return op.tools.Pool.Write(ctx, ref.Layer{Created: op.tools.now(), By: "git " + op.String()}, func(w *layer.Writer) error {
		return edit.WriteLayer(ctx, w)
	})
}

// errNoGit is what a machine without git answers.
var errNoGit = errors.New("git is not installed")
