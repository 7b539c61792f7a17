package tree

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// list says what fsys holds, one line a file: what a test compares.
func list(t testing.TB, fsys FS) string {
	t.Helper()
	var b strings.Builder
	var walk func(path string)
	walk = func(path string) {
		entries, err := fsys.ReadDir(path)
		must(t, err)
		for _, e := range entries {
			p := join(path, e.Name())
			info, err := e.Info()
			must(t, err)
			fmt.Fprintln(&b, line(t, fsys, p, info))
			again, err := fsys.Lstat(p)
			must(t, err)
			if line(t, fsys, p, info) != line(t, fsys, p, again) {
				t.Errorf("%s: ReadDir and Lstat differ: %v, %v", p, info.Mode(), again.Mode())
			}
			if e.IsDir() {
				walk(p)
			}
		}
	}
	walk(".")
	return b.String()
}

// line describes one file: mode, owner, name, content or target.
func line(t testing.TB, fsys FS, p string, info fs.FileInfo) string {
	t.Helper()
	st := statOf(info)
	what := ""
	switch info.Mode().Type() {
	case 0:
		data, err := fs.ReadFile(fsys, p)
		must(t, err)
		what = fmt.Sprintf(" %q", data)
	case fs.ModeSymlink:
		target, err := fsys.ReadLink(p)
		must(t, err)
		what = " -> " + target
	}
	if len(st.Xattrs) > 0 {
		what += fmt.Sprintf(" %q", st.Xattrs)
	}
	return fmt.Sprintf("%v %d:%d %s%s", info.Mode(), st.UID, st.GID, p, what)
}

// names is list without modes, owners and contents.
func names(t testing.TB, fsys FS) string {
	t.Helper()
	var all []string
	for l := range strings.Lines(list(t, fsys)) {
		fields := strings.SplitN(strings.TrimSpace(l), " ", 4)
		name := fields[2]
		if fields[0][0] == 'd' {
			name += "/"
		}
		if len(fields) == 4 && strings.HasPrefix(fields[3], "-> ") {
			name += fields[3][2:]
		}
		all = append(all, strings.ReplaceAll(name, " ", "->"))
	}
	return strings.Join(all, " ")
}

// build makes a tree of the files that host would make, in memory.
func build(t testing.TB, files ...string) FS {
	t.Helper()
	c := Edit(nil)
	for _, f := range files {
		name, target, isLink := strings.Cut(f, " -> ")
		dir, _ := split(relative(name))
		must(t, c.Mkdir(dir, MakeOptions{Mode: 0o755, Parents: true}))
		switch {
		case isLink:
			must(t, c.Symlink(target, name, MakeOptions{}))
		case strings.HasSuffix(f, "/"):
			must(t, c.Mkdir(name, MakeOptions{Mode: 0o755}))
		default:
			must(t, c.Mkfile(name, []byte(name), MakeOptions{Mode: 0o644}))
		}
	}
	return c.FS()
}

// dockerfile are the options that COPY of a Dockerfile has.
var dockerfile = CopyOptions{
	FollowSymlink: true, DirContents: true, Wildcard: true, AllowEmptyWildcard: true, CreateDestPath: true,
}

func TestCopyPutsThingsWhereBuildKitDoes(t *testing.T) {
	source := []string{"a", "b", "d/e", "d/f/g", "l -> d", "m -> a", "dangling -> nowhere"}
	plain := dockerfile
	plain.DirContents = false
	replace := dockerfile
	replace.AlwaysReplace = true
	noFollow := dockerfile
	noFollow.FollowSymlink = false
	strict := CopyOptions{}
	for _, test := range []struct {
		name     string
		base     []string
		src, dst string
		o        CopyOptions
		want     string // names, or ! and a part of the error
	}{
		{"file to new name", nil, "a", "/x", dockerfile, "x"},
		{"file to new directory", nil, "a", "/x/", dockerfile, "x/ x/a"},
		{"file to new directory with dot", nil, "a", "/x/.", dockerfile, "x/ x/a"},
		{"file below new directories", nil, "a", "/x/y/z", dockerfile, "x/ x/y/ x/y/z"},
		{"file to existing directory", []string{"x/"}, "a", "/x", dockerfile, "x/ x/a"},
		{"file to existing file", []string{"x"}, "a", "/x", dockerfile, "x"},
		{"file to root", nil, "a", "/", dockerfile, "a"},
		{"file through link", []string{"x/", "y -> x"}, "a", "/y/z", dockerfile, "x/ x/z y->x"},
		{"file onto link to directory", []string{"x/", "y -> x"}, "a", "/y", dockerfile, "x/ x/a y->x"},
		{"file onto link to file", []string{"x", "y -> x"}, "a", "/y", dockerfile, "x y->x"},
		{"file onto dangling link", []string{"y -> /x/z"}, "a", "/y", dockerfile, "x/ x/z y->/x/z"},
		{"file through link out of the root", []string{"y -> ../../../x"}, "a", "/y/z", dockerfile, "x/ x/z y->../../../x"},
		{"file onto link inside directory", []string{"x/a -> ../b", "b"}, "a", "/x/", dockerfile, "b x/ x/a"},
		{"file below file", []string{"x"}, "a", "/x/y", dockerfile, "!not a directory"},
		{"file to file as directory", []string{"x"}, "a", "/x/", dockerfile, "!not a directory"},
		{"file over directory", []string{"x/a/b"}, "a", "/x", dockerfile, "!cannot replace to directory /x/a with file"},
		{"file over directory, replacing", []string{"x/a/b"}, "a", "/x", replace, "x/ x/a"},
		{"contents to new directory", nil, "d", "/x", dockerfile, "x/ x/e x/f/ x/f/g"},
		{"contents to existing directory", []string{"x/y"}, "d", "/x", dockerfile, "x/ x/e x/f/ x/f/g x/y"},
		{"contents to file", []string{"x"}, "d", "/x", dockerfile, "!cannot copy to non-directory: /x"},
		{"contents to file, replacing", []string{"x"}, "d", "/x", replace, "x/ x/e x/f/ x/f/g"},
		{"contents through link", []string{"x/", "y -> x"}, "d", "/y", dockerfile, "x/ x/e x/f/ x/f/g y->x"},
		{"contents over file", []string{"x/f"}, "d", "/x", dockerfile, "!cannot copy to non-directory: /x/f"},
		{"contents over link to directory", []string{"x/f -> /z", "z/"}, "d", "/x", dockerfile, "!cannot copy to non-directory: /x/f"},
		{"contents over link, replacing", []string{"x/f -> /z", "z/"}, "d", "/x", replace, "x/ x/e x/f/ x/f/g z/"},
		{"contents of link to directory", nil, "l", "/x", dockerfile, "x/ x/e x/f/ x/f/g"},
		{"all to root", nil, ".", "/", dockerfile, "a b d/ d/e d/f/ d/f/g dangling->nowhere l->d m->a"},
		{"directory to new name", nil, "d", "/x", plain, "x/ x/e x/f/ x/f/g"},
		{"directory to existing directory", []string{"x/"}, "d", "/x", plain, "x/ x/d/ x/d/e x/d/f/ x/d/f/g"},
		{"directory to new directory", nil, "d", "/x/", plain, "x/ x/d/ x/d/e x/d/f/ x/d/f/g"},
		{"directory to file", []string{"x"}, "d", "/x", plain, "!not a directory"},
		{"link followed", nil, "m", "/x", dockerfile, "x"},
		{"link followed into directory", nil, "m", "/x/", dockerfile, "x/ x/m"},
		{"link kept", nil, "m", "/x", noFollow, "x->a"},
		{"dangling link", nil, "dangling", "/x", dockerfile, "!file does not exist"},
		{"missing file", nil, "nofile", "/x", dockerfile, "!file does not exist"},
		{"wildcard", nil, "?", "/x/", dockerfile, "x/ x/a x/b x/e x/f/ x/f/g x/m"},
		{"wildcard below directory", nil, "d/*", "/x/", dockerfile, "x/ x/e x/g"},
		{"wildcard without match", nil, "*.txt", "/x/", dockerfile, ""},
		{"wildcard in missing directory", nil, "nodir/*.txt", "/x/", dockerfile, "!file does not exist"},
		{"wildcard without match, strict", nil, "*.txt", "/x/", CopyOptions{Wildcard: true}, "!not found"},
		{"bad wildcard", nil, "[", "/x/", dockerfile, ""},
		{"dot dot stays inside", nil, "../../a", "../x", dockerfile, "x"},
		{"destination not made", nil, "a", "/x/y", strict, "!file does not exist"},
		{"destination there", []string{"x/"}, "a", "/x/y", strict, "x/ x/y"},
		{"directory with dot", []string{"x/"}, "d/.", "/x", strict, "x/ x/e x/f/ x/f/g"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Edit(build(t, test.base...))
			err := c.Copy(t.Context(), build(t, source...), test.src, test.dst, test.o)
			if part, fails := strings.CutPrefix(test.want, "!"); fails {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Fatalf("error %v, not %q", err, part)
				}
				return
			}
			must(t, err)
			if got := names(t, c.FS()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCopyNeedsTheRequiredPaths(t *testing.T) {
	src := build(t, "a/b", "a/c")
	o := dockerfile
	o.Include, o.Required = []string{"a/b"}, []string{"/a/b"}
	c := Edit(nil)
	must(t, c.Copy(t.Context(), src, "/", "/x/", o))
	if got := names(t, c.FS()); got != "x/ x/a/ x/a/b" {
		t.Errorf("got %s", got)
	}
	o.Include, o.Required = []string{"a/d"}, []string{"/a/d"}
	err := Edit(nil).Copy(t.Context(), src, "/", "/x/", o)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), `"/a/d": not found`) {
		t.Errorf("%v", err)
	}
}

func TestNewFilesInASetgidDirectoryGetItsGroup(t *testing.T) {
	base := Edit(nil)
	must(t, base.Mkdir("d", MakeOptions{Mode: 0o755, Owner: &Owner{5, 6}}))
	base.root.kids["d"].mode |= fs.ModeSetgid
	c := Edit(base.FS())
	must(t, c.Mkdir("d/x/y", MakeOptions{Mode: 0o755, Parents: true}))
	must(t, c.Mkfile("d/f", nil, MakeOptions{Mode: 0o644}))
	must(t, c.Mkdir("d/own", MakeOptions{Mode: 0o755, Owner: &Owner{7, 8}}))
	must(t, c.Copy(t.Context(), build(t, "a"), "a", "/d/new/a", dockerfile))
	want := `dgrwxr-xr-x 5:6 d
-rw-r--r-- 0:6 d/f ""
dgrwxr-xr-x 0:6 d/new
-rw-r--r-- 0:0 d/new/a "a"
dgrwxr-xr-x 7:8 d/own
dgrwxr-xr-x 0:6 d/x
dgrwxr-xr-x 0:6 d/x/y
`
	if got := list(t, c.FS()); got != want {
		t.Errorf("got\n%s", got)
	}
}
