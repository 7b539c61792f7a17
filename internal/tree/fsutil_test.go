package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"github.com/shaleproject/shale/internal/sys"
	fsutil "github.com/tonistiigi/fsutil/copy"
)

// fsutilCopy does with directories of the host what BuildKit's file operation
// does for a copy (solver/llbsolver/file/backend.go, docopy), through the same
// library.
func fsutilCopy(ctx context.Context, src, srcPath, dst, dstPath string, o CopyOptions) error {
	clean := func(s string) string {
		c := filepath.Join("/", s)
		switch {
		case strings.HasSuffix(s, "/.") && c != "/":
			return c + "/."
		case strings.HasSuffix(s, "/.") || strings.HasSuffix(s, "/") && c == "/":
			return c
		case strings.HasSuffix(s, "/"):
			return c + "/"
		}
		return c
	}
	srcPath, dstClean := clean(srcPath), clean(dstPath)
	if !o.CreateDestPath {
		p, err := continuity.RootPath(dst, filepath.Join("/", dstPath))
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Dir(p)); err != nil {
			return err
		}
	}
	sources := []string{srcPath}
	if o.Wildcard {
		var err error
		if sources, err = fsutil.ResolveWildcards(src, srcPath, o.FollowSymlink); err != nil {
			return err
		}
		if len(sources) == 0 && !o.AllowEmptyWildcard {
			return errors.New("not found")
		}
	}
	for _, s := range sources {
		err := fsutil.Copy(ctx, src, s, dst, dstClean, func(ci *fsutil.CopyInfo) {
			ci.IncludePatterns, ci.ExcludePatterns = o.Include, o.Exclude
			ci.Chown = func(old *fsutil.User) (*fsutil.User, error) {
				if o.Owner != nil {
					return &fsutil.User{UID: int(o.Owner.UID), GID: int(o.Owner.GID)}, nil
				}
				return old, nil
			}
			ci.Utime = o.Time
			if mode, err := strconv.ParseUint(o.Mode, 8, 32); err == nil {
				m := int(mode)
				ci.Mode = &m
			} else {
				ci.ModeStr = o.Mode
			}
			ci.CopyDirContents, ci.FollowLinks = o.DirContents, o.FollowSymlink
			ci.AlwaysReplaceExistingDestPaths = o.AlwaysReplace
			ci.XAttrErrorHandler = func(string, string, string, error) error { return nil }
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// load reads a directory of the host with owners, attributes and hard links,
// which [Dir] does not show.
func load(t testing.TB, root string) FS {
	t.Helper()
	c := Edit(nil)
	own, err := os.Lstat(root)
	must(t, err)
	c.root.mode = own.Mode()
	inodes := map[uint64]*inode{}
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		entries, err := os.ReadDir(filepath.Join(root, path))
		must(t, err)
		for _, e := range entries {
			p := join(path, e.Name())
			info, err := os.Lstat(filepath.Join(root, p))
			must(t, err)
			st := info.Sys().(*syscall.Stat_t)
			i := inodes[st.Ino]
			if i == nil || info.IsDir() {
				i = c.newInode(inode{mode: info.Mode(), owner: Owner{st.Uid, st.Gid}, mtime: info.ModTime(), size: info.Size(), rdev: st.Rdev})
				i.xattrs, err = sys.Xattrs(filepath.Join(root, p))
				must(t, err)
				switch {
				case info.Mode().IsRegular():
					data, err := os.ReadFile(filepath.Join(root, p))
					must(t, err)
					i.from, i.at = section{strings.NewReader(string(data)), 0, int64(len(data))}, p
				case info.Mode().Type() == fs.ModeSymlink:
					i.target, err = os.Readlink(filepath.Join(root, p))
					must(t, err)
				}
				inodes[st.Ino] = i
			} else {
				i.addLink()
			}
			kid := &node{inode: i}
			n.set(e.Name(), kid)
			if info.IsDir() {
				walk(p, kid)
			}
		}
	}
	walk(".", c.root)
	return c.FS()
}

var trials = []string{"a", "b", "c"}

// randomTree fills dir with files of all kinds under few names, so that two
// such trees meet in most of them.
func randomTree(t testing.TB, r *rand.Rand, dir string, depth int) {
	var files []string
	for _, name := range trials {
		p := filepath.Join(dir, name)
		switch k := r.IntN(12); {
		case k < 3:
			must(t, os.WriteFile(p, []byte(fmt.Sprint(r.IntN(100))), 0o600))
			files = append(files, p)
		case k < 7 && depth > 0:
			must(t, os.Mkdir(p, 0o700))
			randomTree(t, r, p, depth-1)
		case k == 7:
			targets := []string{"a", "b", "../a", "/b", "/a/b", "..", ".", "/", "nowhere", "c/a", "../../../b"}
			must(t, os.Symlink(targets[r.IntN(len(targets))], p))
		case k == 8 && len(files) > 0:
			must(t, os.Link(files[r.IntN(len(files))], p))
			continue
		case k == 9:
			must(t, syscall.Mkfifo(p, 0o600))
		default:
			continue
		}
		if uid, gid := r.IntN(3), r.IntN(3); os.Getuid() == 0 {
			must(t, os.Lchown(p, uid, gid))
		}
		info, err := os.Lstat(p)
		must(t, err)
		if info.Mode().Type() != fs.ModeSymlink {
			modes := []uint32{0o755, 0o644, 0o700, 0o600, 0o4755, 0o1777, 0o2775}
			mode := modes[r.IntN(len(modes))]
			if os.Getuid() != 0 {
				mode |= 0o700 // or nobody could read it
			}
			must(t, syscall.Chmod(p, mode))
			if r.IntN(4) == 0 && info.Mode().Type() != fs.ModeNamedPipe {
				must(t, syscall.Setxattr(p, "user.x"+strconv.Itoa(r.IntN(2)), []byte{byte(r.IntN(5))}, 0))
			}
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			at := time.Unix(1000000+r.Int64N(1000000), 0)
			must(t, os.Chtimes(filepath.Join(dir, e.Name()), at, at))
		}
	}
}

func randomOptions(r *rand.Rand) CopyOptions {
	o := CopyOptions{
		FollowSymlink: r.IntN(2) == 0, DirContents: r.IntN(2) == 0, Wildcard: r.IntN(2) == 0,
		AllowEmptyWildcard: r.IntN(2) == 0, CreateDestPath: r.IntN(4) > 0, AlwaysReplace: r.IntN(3) == 0,
	}
	if r.IntN(3) == 0 {
		o.Owner = &Owner{7, 8}
	}
	if r.IntN(3) == 0 {
		o.Mode = []string{"0750", "4711", "u+x,g=o", "a+X", "go-rwx"}[r.IntN(5)]
	}
	if r.IntN(3) == 0 {
		at := time.Unix(12345, 0)
		o.Time = &at
	}
	patterns := []string{"a", "b", "a/b", "*/a", "**/c", "a/*/c", "!a/b", "c/**", "!c/a", "*", "!b"}
	if r.IntN(3) == 0 {
		o.Include = []string{patterns[r.IntN(len(patterns))], patterns[r.IntN(len(patterns))]}
	}
	if r.IntN(3) == 0 {
		o.Exclude = []string{patterns[r.IntN(len(patterns))], patterns[r.IntN(len(patterns))]}
	}
	return o
}

// timesOf lists the times of what a copy gives a time to: a directory that has
// the time of the test itself was only touched by what was made in it.
func timesOf(t testing.TB, fsys FS, since time.Time) map[string]int64 {
	t.Helper()
	times := map[string]int64{}
	var walk func(path string)
	walk = func(path string) {
		entries, err := fsys.ReadDir(path)
		must(t, err)
		for _, e := range entries {
			info, err := e.Info()
			must(t, err)
			if at := info.ModTime(); at.Before(since) && at.Unix() != 0 {
				times[join(path, e.Name())] = at.Unix()
			}
			if e.IsDir() {
				walk(join(path, e.Name()))
			}
		}
	}
	walk(".")
	return times
}

// linksOf groups the names that are hard links of one file.
func linksOf(t testing.TB, fsys FS) string {
	t.Helper()
	groups := map[uint64][]string{}
	var walk func(path string)
	walk = func(path string) {
		entries, err := fsys.ReadDir(path)
		must(t, err)
		for _, e := range entries {
			info, err := e.Info()
			must(t, err)
			if e.IsDir() {
				walk(join(path, e.Name()))
			} else {
				groups[statOf(info).Ino] = append(groups[statOf(info).Ino], join(path, e.Name()))
			}
		}
	}
	walk(".")
	var all []string
	for _, g := range groups {
		all = append(all, fmt.Sprint(g))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func FuzzCopyDoesWhatBuildKitDoes(f *testing.F) {
	if os.Getuid() != 0 {
		f.Skip("giving files to other users needs root")
	}
	// As in buildkitd: then directories that are made inherit the setgid bit.
	defer syscall.Umask(syscall.Umask(0))
	fsutil.UmaskIsZero = true
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(compareCopy)
}

func compareCopy(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	src, dst := t.TempDir(), t.TempDir()
	randomTree(t, r, src, 3)
	randomTree(t, r, dst, 3)
	since := time.Now().Add(-time.Hour)
	c, from := Edit(load(t, dst)), load(t, src)
	kept := map[string]bool{}
	for range 1 + r.IntN(2) {
		srcPaths := []string{"/", "a", "b", "/a/b", "a/", "b/.", "c", "*", "a/*", "?/a", "a/b/c", "[ab]", "../c", "nofile"}
		dstPaths := []string{"/", "/a", "/b/", "a/b", "new/.", "/new", "/new/", "/new/x/y", "/a/b/c", "b/c/", "../x", "."}
		s, d, o := srcPaths[r.IntN(len(srcPaths))], dstPaths[r.IntN(len(dstPaths))], randomOptions(r)
		base := c.FS()
		before := list(t, base)
		theirs := fsutilCopy(t.Context(), src, s, dst, d, o)
		ours := c.Copy(t.Context(), from, s, d, o)
		say := fmt.Sprintf("copy %s to %s with %+v\nsource:\n%sbefore:\n%s", s, d, o, list(t, from), before)
		if theirs != nil && strings.Contains(theirs.Error(), "failed to stat ") &&
			(errors.Is(theirs, syscall.ENOTDIR) || errors.Is(theirs, syscall.ELOOP)) {
			return // it looks for what it will not copy below what is no directory; we do not
		}
		if ours != nil && strings.HasSuffix(ours.Error(), "copy to /: is a directory") {
			return // it would replace the root by a file
		}
		if (theirs == nil) != (ours == nil) {
			t.Fatalf("%s\nours:   %v\ntheirs: %v", say, ours, theirs)
		}
		if ours != nil {
			return
		}
		want := load(t, dst)
		if got, want := list(t, c.FS()), list(t, want); got != want {
			t.Fatalf("%s\ngot:\n%s\nwant:\n%s", say, got, want)
		}
		if got, want := linksOf(t, c.FS()), linksOf(t, want); got != want {
			t.Fatalf("%s\nlinks: %s\nwant:  %s", say, got, want)
		}
		wantTimes := timesOf(t, want, since)
		gotTimes := timesOf(t, c.FS(), since)
		maps.DeleteFunc(gotTimes, func(p string, _ int64) bool { _, ok := wantTimes[p]; return !ok })
		// The one difference, see copyDir: a destination that exists keeps its time.
		for _, tree := range []FS{base, c.FS()} {
			if real, err := Resolve(tree, d); err == nil {
				kept[real] = true
			}
		}
		maps.DeleteFunc(wantTimes, func(p string, at int64) bool {
			dir, _ := split(p)
			info, err := c.FS().Lstat(p)
			return err == nil && info.IsDir() && (kept[p] || kept[dir])
		})
		maps.DeleteFunc(gotTimes, func(p string, _ int64) bool { _, ok := wantTimes[p]; return !ok })
		if !maps.Equal(gotTimes, wantTimes) {
			t.Fatalf("%s\ntimes: %v\nwant:  %v", say, gotTimes, wantTimes)
		}
	}
}
