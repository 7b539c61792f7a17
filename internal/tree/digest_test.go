package tree

import (
	"math/rand/v2"
	"os"
	"testing"
)

// FuzzEqualDigestsMeanEqualCopies is what makes a cache hit right: whenever two
// sources have the same digest, a copy of either gives the same files.
func FuzzEqualDigestsMeanEqualCopies(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 4))
		root := t.TempDir()
		randomTree(t, r, root, 3)
		first := load(t, root)
		mutate(t, r, root)
		second := load(t, root)
		for range 10 {
			o := randomOptions(r)
			paths := []string{"/", "a", "b", "a/b", "*", "a/*", "?/a", "c/.", "b/"}
			path := paths[r.IntN(len(paths))]
			do := DigestOptions{
				FollowSymlink: o.FollowSymlink, Wildcard: o.Wildcard, DirContents: o.DirContents,
				Include: o.Include, Exclude: o.Exclude,
			}
			d1, err1 := Digest(t.Context(), first, path, do)
			d2, err2 := Digest(t.Context(), second, path, do)
			if err1 != nil || err2 != nil || d1 != d2 {
				continue
			}
			for _, dst := range []string{"/x", "/x/", "/a"} {
				c1, c2 := Edit(build(t, "a/b/c")), Edit(build(t, "a/b/c"))
				err1 := c1.Copy(t.Context(), first, path, dst, o)
				err2 := c2.Copy(t.Context(), second, path, dst, o)
				if (err1 == nil) != (err2 == nil) {
					t.Fatalf("copy %s to %s with %+v: %v, %v", path, dst, o, err1, err2)
				}
				if got, want := list(t, c2.FS()), list(t, c1.FS()); got != want {
					t.Fatalf("copy %s to %s with %+v\nfirst:\n%s\nsecond:\n%s", path, dst, o, want, got)
				}
				if got, want := linksOf(t, c2.FS()), linksOf(t, c1.FS()); got != want {
					t.Fatalf("copy %s to %s with %+v\nlinks: %s, then %s", path, dst, o, want, got)
				}
			}
		}
	})
}

// mutate changes one thing below dir, or nothing. The links in dir may lead
// anywhere: an [os.Root] does not follow them out.
func mutate(t testing.TB, r *rand.Rand, dir string) {
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	name := []string{"a", "b", "c", "a/a", "a/b", "b/c", "c/a"}[r.IntN(7)]
	switch r.IntN(6) {
	case 0:
		if info, err := root.Lstat(name); err != nil || info.Mode().IsRegular() {
			root.WriteFile(name, []byte("new"), 0o600)
		}
	case 1:
		root.RemoveAll(name)
	case 2:
		if info, err := root.Lstat(name); err == nil && info.Mode().Type() != os.ModeSymlink {
			root.Chmod(name, 0o711)
		}
	case 3:
		root.Symlink("a", name)
	case 4:
		root.Lchown(name, 9, 9)
	case 5:
		root.Rename(name, name+"x")
	}
}
