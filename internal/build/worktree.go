package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// commit is what a directory was checked out from.
type commit struct {
	id    string
	at    time.Time
	dirty bool // there is more, less or something else in the directory
}

// findCommit returns the commit that the work tree around dir is of, nil if
// dir lies in none. A difference elsewhere in the work tree does not make it
// dirty. scratch is an empty directory for git.
//
// The context may be a stranger's, and git does what a repository's
// configuration says. So git is shown a repository of our own, which has the
// other one's objects and index and no configuration.
func findCommit(ctx context.Context, dir, scratch string) (*commit, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	top, repository := findRepository(dir)
	if repository == "" {
		return nil, nil
	}
	common := repository // of a work tree that was added: git-worktree(1)
	if data, err := readRegular(filepath.Join(repository, "commondir")); err == nil {
		common = absoluteIn(repository, string(data))
	}
	c := &commit{id: headOf(repository, common)}
	if c.id == "" {
		if _, err := os.Stat(filepath.Join(common, "reftable")); err == nil {
			return nil, fmt.Errorf("read references from a reftable (give the date with SOURCE_DATE_EPOCH): %w", errdefs.ErrNotImplemented)
		}
		return nil, nil // nothing has been committed
	}
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("git is not installed (Debian: apt-get install git), or give the date with SOURCE_DATE_EPOCH: %w", errdefs.ErrFailedPrecondition)
	}
	g := worktreeGit{program: program, top: top, repository: filepath.Join(scratch, "git"), index: filepath.Join(repository, "index")}
	if err := g.make(c.id, common); err != nil {
		return nil, err
	}
	if c.at, err = g.committed(ctx, c.id); err != nil {
		return nil, err
	}
	c.dirty, err = g.dirty(ctx, dir, filepath.Join(common, "info", "exclude"))
	return c, err
}

// findRepository looks for .git in dir and above it, and returns the directory
// that it is in and the one that it is or names (gitrepository-layout(5)).
func findRepository(dir string) (top, repository string) {
	for {
		at := filepath.Join(dir, ".git")
		switch info, err := os.Stat(at); {
		case err == nil && info.IsDir():
			return dir, at
		case err == nil && info.Mode().IsRegular() && info.Size() < 1<<16:
			data, err := readRegular(at)
			if name, ok := strings.CutPrefix(string(data), "gitdir: "); err == nil && ok {
				return dir, absoluteIn(dir, name)
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", ""
		}
		dir = up
	}
}

// absoluteIn is the path that a line of a file in dir names.
func absoluteIn(dir, line string) string {
	name := strings.TrimSuffix(line, "\n")
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// maxRefs bounds a file of a repository that is read here, in bytes. The largest
// lists the references.
const maxRefs = 64 << 20

// readRegular reads a file that a stranger may have made: one without an end,
// or without a writer, is an error.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxRefs {
		return nil, fmt.Errorf("read %s: no file of a repository: %w", path, errdefs.ErrInvalidArgument)
	}
	return io.ReadAll(io.LimitReader(f, maxRefs))
}

var (
	commitID   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`) })
	branchName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^refs/[^.\x00-\x20\x7f]+(\.[^.\x00-\x20\x7f]+)*$`) })
)

// headOf returns the commit that is checked out, "" if there is none.
func headOf(repository, common string) string {
	data, err := readRegular(filepath.Join(repository, "HEAD"))
	if err != nil {
		return ""
	}
	head := strings.TrimSpace(string(data))
	branch, symbolic := strings.CutPrefix(head, "ref: ")
	if !symbolic {
		return ifCommit(head)
	}
	if !branchName().MatchString(branch) {
		return ""
	}
	if data, err = readRegular(filepath.Join(common, branch)); err == nil {
		return ifCommit(strings.TrimSpace(string(data)))
	}
	if data, err = readRegular(filepath.Join(common, "packed-refs")); err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if id, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == branch {
			return ifCommit(id)
		}
	}
	return ""
}

func ifCommit(id string) string {
	if commitID().MatchString(id) {
		return id
	}
	return ""
}

// worktreeGit is git, told of a work tree by the way of our own repository.
type worktreeGit struct {
	program, top, repository, index string
}

// make makes the repository, in which id is checked out.
func (g *worktreeGit) make(id, common string) error {
	config := "[core]\n\trepositoryFormatVersion = 1\n\tfsmonitor = false\n\thooksPath = /dev/null\n"
	if len(id) == 64 {
		config += "[extensions]\n\tobjectFormat = sha256\n"
	}
	for name, content := range map[string]string{
		"HEAD": id + "\n", "config": config, "objects/info/alternates": filepath.Join(common, "objects") + "\n", "refs/none": "",
	} {
		file := filepath.Join(g.repository, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return err
		}
	}
	shared, err := filepath.Glob(filepath.Join(filepath.Dir(g.index), "sharedindex.*")) // what a split index consists of
	if err != nil {
		return err
	}
	for _, file := range shared {
		if err := os.Symlink(file, filepath.Join(g.repository, filepath.Base(file))); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(g.repository, "refs/none"))
}

// committed is the date of the commit id.
func (g *worktreeGit) committed(ctx context.Context, id string) (time.Time, error) {
	object, err := g.run(ctx, "cat-file", "commit", id)
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(object) {
		if !strings.HasPrefix(line, "committer ") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			break
		}
		seconds, err := strconv.ParseInt(fields[len(fields)-2], 10, 64)
		return time.Unix(seconds, 0).UTC(), err
	}
	return time.Time{}, fmt.Errorf("read commit %s: it has no date: %w", id, errdefs.ErrInvalidArgument)
}

// dirty tells whether dir is not as it was committed. What the file excludes
// names is no part of it, nor is what a .gitignore does.
func (g *worktreeGit) dirty(ctx context.Context, dir, excludes string) (bool, error) {
	if info, err := os.Stat(g.index); errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return true, nil
	}
	out, err := g.run(ctx, "-c", "core.excludesFile="+excludes, "--literal-pathspecs",
		"status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty", "--no-renames", "--", dir)
	return out != "", err
}

func (g *worktreeGit) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, g.program, args...)
	cmd.Dir = g.top
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=" + g.repository,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_DIR=" + g.repository, "GIT_WORK_TREE=" + g.top, "GIT_INDEX_FILE=" + g.index,
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	return string(out), nil
}
