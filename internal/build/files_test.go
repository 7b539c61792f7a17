package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// list describes every file of an image: name, mode, owner, and content or
// target.
func (b *bench) list(o outcome) []string {
	b.Helper()
	fsys := b.tree(o.Image)
	var out []string
	for _, name := range b.names(o.Image) {
		info, err := fsys.Lstat(name)
		if err != nil {
			b.Fatal(err)
		}
		st := info.Sys().(*layer.Stat)
		line := fmt.Sprintf("%s %s %d:%d", name, info.Mode(), st.UID, st.GID)
		switch {
		case info.Mode().IsRegular():
			line += " " + strings.TrimSpace(b.read(o.Image, name))
		case info.Mode().Type() == os.ModeSymlink:
			target, err := fsys.ReadLink(name)
			if err != nil {
				b.Fatal(err)
			}
			line += " -> " + target
		}
		out = append(out, line)
	}
	return out
}

func archive(t *testing.T, names ...string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: 1, Uid: 7, Gid: 8}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Every form of COPY and ADD leaves the files that docker build leaves.
func TestCopiesAreThoseOfDockerBuild(t *testing.T) {
	for _, test := range []struct {
		name, dockerfile string
		want             []string
	}{
		{"file to file", "COPY a /b", []string{"b -rw-r--r-- 0:0 a"}},
		{"file to directory", "COPY a /d/", []string{"d drwxr-xr-x 0:0", "d/a -rw-r--r-- 0:0 a"}},
		{"contents of a directory", "COPY dir /", []string{"one -rw-r--r-- 0:0 1", "two -rw-r--r-- 0:0 2"}},
		{"pattern", "COPY dir/o* *.none /d/", []string{"d drwxr-xr-x 0:0", "d/one -rw-r--r-- 0:0 1"}},
		{"link is followed", "COPY link /b", []string{"b -rw-r--r-- 0:0 a"}},
		{"link in a directory stays", "COPY links /l", []string{"l drwxr-xr-x 0:0", "l/to-a Lrwxrwxrwx 0:0 -> ../a"}},
		{"numbers as owner", "COPY --chown=5:6 a /d/", []string{"d drwxr-xr-x 5:6", "d/a -rw-r--r-- 5:6 a"}},
		{"one number as owner", "COPY --chown=5 a /b", []string{"b -rw-r--r-- 5:5 a"}},
		{"octal mode", "COPY --chmod=4711 a /b", []string{"b urwx--x--x 0:0 a"}},
		{"symbolic mode", "COPY --chmod=u+x,go= a /b", []string{"b -rwx------ 0:0 a"}},
		{"parents", "COPY --parents dir/one /x/", []string{"x drwxr-xr-x 0:0", "x/dir drwxr-xr-x 0:0", "x/dir/one -rw-r--r-- 0:0 1"}},
		{"exclude", "COPY --exclude=two dir /d/", []string{"d drwxr-xr-x 0:0", "d/one -rw-r--r-- 0:0 1"}},
		{"link upon nothing", "COPY --link a /b", []string{"b -rw-r--r-- 0:0 a"}},
		{"archive", "ADD x.tgz /d/", []string{"d drwxr-xr-x 0:0", "d/x -rw------- 7:8 x", "d/y -rw------- 7:8 x"}},
		{"archive copied", "COPY x.tgz /\nCOPY a /b", nil},
		{"inline file", "COPY --chmod=600 <<A /b\nline\nA", []string{"b -rw------- 0:0 line"}},
		{"directory made", "WORKDIR /one/two", []string{"one drwxr-xr-x 0:0", "one/two drwxr-xr-x 0:0"}},
		{"later copy wins", "COPY a /x\nCOPY --link dir/one /x", []string{"x -rw-r--r-- 0:0 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			ctx := directory(t, map[string]string{
				"Dockerfile": "FROM scratch\n" + test.dockerfile + "\n",
				"a":          "a\n", "dir/one": "1\n", "dir/two": "2\n",
				"link": "-> a", "links/to-a": "-> ../a",
				"x.tgz": archive(t, "x", "y"),
			})
			got := b.list(b.build(dir(ctx)))
			if test.want != nil {
				equal(t, "tree", got, test.want)
			}
		})
	}
}

// Names of owners are looked up in the image that is copied to.
func TestAnOwnerIsLookedUpInTheImage(t *testing.T) {
	b := newBench(t)
	b.base("names", []*tar.Header{
		{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644, Linkname: "user:x:1000:1001::/:/bin/sh\n"},
		{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644, Linkname: "staff:x:50:\n"},
	})
	o := b.build(dockerfile("FROM names\nCOPY --chown=user <<A /1\nA\nCOPY --chown=user:staff <<A /2\nA\nCOPY --chown=nobody <<A /3\nA\n"))
	for name, want := range map[string]string{"1": "1000:1001", "2": "1000:50", "3": "0:0"} {
		info, err := b.tree(o.Image).Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*layer.Stat)
		equal(t, "owner of "+name, fmt.Sprintf("%d:%d", st.UID, st.GID), want)
	}
	if !strings.Contains(o.log, "nobody") {
		t.Errorf("nothing is said about the unknown user: %q", o.log)
	}
}

// A link in the image leads within the image, also for what is copied there.
func TestADestinationDoesNotLeadOut(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	b.base("evil", []*tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "out", Linkname: host},
		{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../../../../../../tmp"},
	})
	o := b.build(dockerfile("FROM evil\nCOPY <<A /out/x\nA\nCOPY <<A /up/y\nA\nWORKDIR /out/z\n"))
	entries, err := os.ReadDir(host)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("files outside: %v", entries)
	}
	fsys := b.tree(o.Image)
	for _, name := range []string{"/out/x", "/out/z", "/up/y"} {
		real, err := tree.Resolve(fsys, name)
		if err == nil {
			_, err = fsys.Lstat(real)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Layers of --link do not depend on what they lie upon: a new base brings
// them along.
func TestALinkedCopyIsReusedOnAnotherBase(t *testing.T) {
	b := newBench(t)
	for _, base := range []string{"one", "two"} {
		b.base(base, []*tar.Header{{Typeflag: tar.TypeReg, Name: base, Mode: 0o644, Linkname: base}})
	}
	ctx := directory(t, map[string]string{"a": "a\n"})
	text := func(base string) {
		write(t, filepath.Join(ctx, "Dockerfile"), "FROM "+base+"\nCOPY --link a /x/\n")
	}
	text("one")
	first := b.build(dir(ctx))
	b.later()
	text("two")
	second := b.build(dir(ctx))
	equal(t, "ran", steps(second.ran), steps([]string{}))
	equal(t, "layer", second.Image.DiffIDs[1], first.Image.DiffIDs[1])
	equal(t, "tree", b.names(second.Image), []string{"two", "x", "x/a"})
}

func TestTheSyntaxLineMeansTheBuiltInFrontEnd(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{"docker/dockerfile:1", "docker.io/docker/dockerfile:1.7-labs", "docker/dockerfile@sha256:" + strings.Repeat("0", 64)} {
		o := b.build(dockerfile("# syntax=" + line + "\nFROM scratch\nCOPY <<A /b\nA\n"))
		equal(t, "tree", b.names(o.Image), []string{"b"})
	}
}

// What comes from the base stays, and a trigger of the base runs.
func TestTheConfigOfTheBaseIsInherited(t *testing.T) {
	b := newBench(t)
	b.build(dockerfile("FROM scratch\nENV A=1\nLABEL l=base\nEXPOSE 80\nVOLUME /v\nUSER 5\nSTOPSIGNAL SIGINT\n"+
		"HEALTHCHECK --interval=5s CMD true\nONBUILD COPY <<X /triggered\nX\nENTRYPOINT [\"/e\"]\n", "base"))
	o := b.build(dockerfile("FROM base\nLABEL m=own\nCMD [\"c\"]\n"))
	c := o.Image.Config.Config
	equal(t, "labels", c.Labels, map[string]string{"l": "base", "m": "own"})
	equal(t, "entrypoint", c.Entrypoint, []string{"/e"})
	equal(t, "user", c.User, "5")
	equal(t, "stop signal", c.StopSignal, "SIGINT")
	equal(t, "tree", b.names(o.Image), []string{"triggered"})
	if !bytes.Contains(o.Image.RawConfig, []byte(`"Healthcheck":{"Test":["CMD-SHELL","true"]`)) {
		t.Errorf("config is %s", o.Image.RawConfig)
	}
}
