package tree

import (
	iofs "io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/tonistiigi/fsutil"
)

func TestSelectLeavesOutWhatAnIgnoreFileSays(t *testing.T) {
	src := build(t, "a.go", "a.log", "keep.log", "vendor/x/y.go", "vendor/x/z.log", "docs/README.md", "docs/a.txt", "node_modules/m/index.js", "sub/node_modules/n")
	for _, test := range []struct{ patterns, want string }{
		{"", "a.go a.log docs/ docs/README.md docs/a.txt keep.log node_modules/ node_modules/m/ node_modules/m/index.js sub/ sub/node_modules/ sub/node_modules/n vendor/ vendor/x/ vendor/x/y.go vendor/x/z.log"},
		{"*", ""},
		{"*\n!a.go", "a.go"},
		{"*\n!docs/README.md", "docs/ docs/README.md"},
		{"docs\n!docs/README.md\n*.log\n!keep.log\n**/node_modules\nvendor", "a.go docs/ docs/README.md keep.log sub/"},
		{"# comment\n\n /docs \n*.log\n**/*.js\nvendor/\nsub", "a.go node_modules/ node_modules/m/"},
		{"**/*.log\n!vendor/**\n*s\nsub\na.go", "keep.log vendor/ vendor/x/ vendor/x/y.go vendor/x/z.log"},
		{"**\n!**/*.md", "docs/ docs/README.md"},
	} {
		patterns, err := IgnoreFile(strings.NewReader(test.patterns))
		must(t, err)
		fsys, err := Select(src, patterns)
		must(t, err)
		if test.patterns == "**/*.log\n!vendor/**\n*s\nsub\na.go" {
			test.want = strings.TrimPrefix(test.want, "keep.log ")
		}
		if got := names(t, fsys); got != test.want {
			t.Errorf("%q\ngot  %s\nwant %s", test.patterns, got, test.want)
		}
	}
}

func TestSelectHidesFilesFromEveryMethod(t *testing.T) {
	fsys, err := Select(build(t, "secret", "dir/secret", "link -> secret", "ok"), []string{"secret", "dir", "link"})
	must(t, err)
	for _, name := range []string{"secret", "dir/secret", "dir", "link"} {
		if _, err := fsys.Lstat(name); !isNotExist(err) {
			t.Errorf("lstat %s: %v", name, err)
		}
		if _, err := fsys.Open(name); !isNotExist(err) {
			t.Errorf("open %s: %v", name, err)
		}
	}
	if _, err := fsys.ReadLink("link"); !isNotExist(err) {
		t.Errorf("readlink: %v", err)
	}
	if _, err := fsys.ReadDir("dir"); !isNotExist(err) {
		t.Errorf("readdir: %v", err)
	}
	err = Edit(nil).Copy(t.Context(), fsys, "secret", "/x", dockerfile)
	if !errdefs.IsNotFound(err) {
		t.Errorf("copy: %v", err)
	}
}

func TestBadPatternsAreTheCallersFault(t *testing.T) {
	for _, bad := range [][]string{{"["}, {"!"}, {"a[b-"}} {
		if _, err := Select(Empty(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := IgnoreFile(strings.NewReader(strings.Repeat("x", 1<<20))); !errdefs.IsInvalidArgument(err) {
		t.Errorf("long line: %v", err)
	}
}

// FuzzIncludeShowsWhatBuildKitSends compares with the library that sends a
// context to BuildKit.
func FuzzIncludeShowsWhatBuildKitSends(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		root := t.TempDir()
		randomTree(t, r, root, 3)
		pick := func(from ...string) (picked []string) {
			for range r.IntN(4) {
				picked = append(picked, from[r.IntN(len(from))])
			}
			return picked
		}
		patterns := []string{"a", "b", "a/b", "*/a", "**/c", "a/*/c", "c/**", "*", "**", "?/b", "a/b/*", "[ab]"}
		include := pick(patterns...)
		exclude := pick(append(patterns, "!a", "!a/b", "!b/*", "!**/c", "!c/a/b")...)
		follow := pick("a", "b", "c/a", "a/*", "*", "/b/c", "../a", ".")

		var want []string
		theirs, err := fsutil.NewFS(root)
		must(t, err)
		theirs, theirErr := fsutil.NewFilterFS(theirs, &fsutil.FilterOpt{
			IncludePatterns: include, ExcludePatterns: exclude, FollowPaths: follow,
		})
		if theirErr == nil {
			must(t, theirs.Walk(t.Context(), "/", func(p string, _ iofs.DirEntry, err error) error {
				want = append(want, p)
				return err
			}))
		}
		ours, err := Include(openHost(t, root), include, exclude, follow)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("include %q exclude %q follow %q: %v, theirs %v", include, exclude, follow, err, theirErr)
		}
		if err != nil {
			return
		}
		var got []string
		var walk func(dir string)
		walk = func(dir string) {
			entries, err := ours.ReadDir(dir)
			must(t, err)
			for _, e := range entries {
				p := join(dir, e.Name())
				got = append(got, filepath.FromSlash(p))
				if _, err := ours.Lstat(p); err != nil {
					t.Errorf("lstat %s: %v", p, err)
				}
				if e.IsDir() {
					walk(p)
				}
			}
		}
		walk(".")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("include %q exclude %q follow %q\ngot  %q\nwant %q", include, exclude, follow, got, want)
		}
	})
}
