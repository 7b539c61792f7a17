package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shaleproject/shale/internal/build"
)

// attempt is a build that should come to nothing but a build. HOST stands for a
// directory of the host, in which "file" and "dir/file" hold a canary.
type attempt struct {
	dockerfile string
	files      map[string]string                    // of the context, beside the Dockerfile
	prepare    func(t *testing.T, dir, host string) // what a map of files can't say
	request    func(r *build.Request, dir, host string)
	run        bool // it has a RUN
	fails      bool // it has to
}

// hold makes the attempt and checks what holds for all of them: what the host has
// is neither read nor changed, and the context is left as it was.
func (a attempt) hold(t *testing.T) {
	t.Helper()
	b := newBench(t)
	if a.run {
		b = runs(t)
	}
	host, unharmed := canary(t)
	defer unharmed()
	files := map[string]string{"Dockerfile": strings.ReplaceAll(a.dockerfile, "HOST", host)}
	for name, content := range a.files {
		files[name] = strings.ReplaceAll(content, "HOST", host)
	}
	ctx := directory(t, files)
	if a.prepare != nil {
		a.prepare(t, ctx, host)
	}
	before, beside := listing(t, ctx), outside(t, b)
	req := dir(ctx)
	if a.request != nil {
		a.request(&req, ctx, host)
	}
	o := b.try(req)
	if a.fails && o.err == nil {
		t.Errorf("it was built: %q", b.names(o.Image))
	}
	if o.err != nil && strings.Contains(o.err.Error(), "canary\n") || strings.Contains(o.log, "canary\n") {
		t.Errorf("error is %v, log %q", o.err, o.log)
	}
	nowhere(t, b.Store.Root(), "canary\n")
	equal(t, "context", listing(t, ctx), before)
	equal(t, "beside the store", outside(t, b), beside)
	t.Logf("error is %v", o.err)
}

// listing is describe for directories that may hold what must not be opened.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		line := p + " " + info.Mode().String() + " " + info.ModTime().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(data)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " " + target
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// instead replaces a file of the context.
func instead(name string, make func(path, host string) error) func(*testing.T, string, string) {
	return func(t *testing.T, dir, host string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := make(path, host); err != nil {
			t.Fatal(err)
		}
	}
}

func link(target string) func(string, string) error {
	return func(path, host string) error { return os.Symlink(strings.ReplaceAll(target, "HOST", host), path) }
}

func pipe(path, _ string) error { return syscall.Mkfifo(path, 0o600) }

const copyAll = "FROM scratch\nCOPY . /\n"

func TestAHostileContextReadsNothingOfTheHost(t *testing.T) {
	for name, a := range map[string]attempt{
		"a Dockerfile that is a link to a file of the host":   {prepare: instead("Dockerfile", link("HOST/file")), fails: true},
		"a Dockerfile that is a link up":                      {prepare: instead("Dockerfile", link("../../../../../../../../../../HOST/file")), fails: true},
		"a Dockerfile that is a pipe":                         {prepare: instead("Dockerfile", pipe), fails: true},
		"a Dockerfile that is a directory":                    {prepare: instead("Dockerfile", func(p, _ string) error { return os.Mkdir(p, 0o755) }), fails: true},
		"a Dockerfile without end":                            {prepare: instead("Dockerfile", link("/dev/zero")), fails: true},
		"an ignore file that is a link to a file of the host": {dockerfile: copyAll, prepare: instead(".dockerignore", link("HOST/file"))},
		"an ignore file that is a pipe":                       {dockerfile: copyAll, prepare: instead(".dockerignore", pipe)},
		"an ignore file without end":                          {dockerfile: copyAll, prepare: instead(".dockerignore", link("/dev/zero"))},
		"an ignore file of the Dockerfile that is a link":     {dockerfile: copyAll, prepare: instead("Dockerfile.dockerignore", link("HOST/file"))},
		"an ignore file that excludes upwards":                {dockerfile: copyAll, files: map[string]string{".dockerignore": "../../../**\n!../../../../../..HOST/file\n!/..HOST/**\n"}},
		"a link to a file of the host":                        {dockerfile: "FROM scratch\nCOPY l /x\n", files: map[string]string{"l": "-> HOST/file"}},
		"a link to a directory of the host":                   {dockerfile: "FROM scratch\nCOPY l/file /x\n", files: map[string]string{"l": "-> HOST"}, fails: true},
		"a link to a directory of the host, as a whole":       {dockerfile: "FROM scratch\nCOPY l/ /x/\n", files: map[string]string{"l": "-> HOST"}},
		"a link that leads up":                                {dockerfile: "FROM scratch\nCOPY l/file /x\n", files: map[string]string{"l": "-> ../../../../../../../..HOST"}, fails: true},
		"a chain of links":                                    {dockerfile: "FROM scratch\nCOPY a/file /x\n", files: map[string]string{"a": "-> b", "b": "-> c/d", "c/d": "-> ../../../../../../../../..HOST"}, fails: true},
		"links in a circle":                                   {dockerfile: "FROM scratch\nCOPY a/x /x\n", files: map[string]string{"a": "-> b", "b": "-> a"}, fails: true},
		"a path that leads up":                                {dockerfile: "FROM scratch\nCOPY ../../../../../../../..HOST/file /x\n", fails: true},
		"an absolute path":                                    {dockerfile: "FROM scratch\nCOPY HOST/file /x\n", fails: true},
		"a wildcard over links":                               {dockerfile: "FROM scratch\nCOPY */file /x/\n", files: map[string]string{"l": "-> HOST", "m": "-> HOST/dir"}},
		"a wildcard that leads up":                            {dockerfile: "FROM scratch\nCOPY ../*/../file /x/\n"},
		"parents that are links":                              {dockerfile: "# syntax=docker/dockerfile:labs\nFROM scratch\nCOPY --parents l/./dir/file /x/\n", files: map[string]string{"l": "-> HOST"}},
		"parents upon parents":                                {dockerfile: "# syntax=docker/dockerfile:labs\nFROM scratch\nCOPY --parents ../../.././..HOST/file /x/\n"},
		"exclusion that leads up":                             {dockerfile: "# syntax=docker/dockerfile:labs\nFROM scratch\nCOPY --exclude=../../../** . /x/\n", files: map[string]string{"l": "-> HOST"}},
		"an archive that is a link to one of the host":        {dockerfile: "FROM scratch\nADD a.tar /x/\n", files: map[string]string{"a.tar": "-> HOST/file"}},
		"a destination that leads up":                         {dockerfile: "FROM scratch\nCOPY f ../../../../../../../..HOST/file\n", files: map[string]string{"f": "harmless\n"}},
		"a destination behind a link of the context":          {dockerfile: "FROM scratch\nCOPY l /d\nCOPY f /d/file\n", files: map[string]string{"l": "-> HOST", "f": "harmless\n"}},
		"a destination behind a link of the stage":            {dockerfile: "FROM scratch AS a\nCOPY . /\nFROM a\nCOPY f /l/dir/\nWORKDIR /l/dir\nCOPY f x\n", files: map[string]string{"l": "-> HOST", "f": "harmless\n"}},
		"a link of a stage that is copied from":               {dockerfile: "FROM scratch AS a\nCOPY . /\nFROM scratch\nCOPY --from=a /l/file /x\n", files: map[string]string{"l": "-> HOST"}, fails: true},
		"a working directory that leads up":                   {dockerfile: "FROM scratch\nWORKDIR ../../../../../../..HOST\nCOPY f file\n", files: map[string]string{"f": "harmless\n"}},
		"a user's name behind a link of the image":            {dockerfile: "FROM scratch AS a\nCOPY . /\nFROM a\nCOPY --chown=root:root f /x\n", files: map[string]string{"etc/passwd": "-> HOST/file", "etc/group": "-> HOST/file", "f": "harmless\n"}},
		"a user's name in a file without end":                 {dockerfile: "FROM scratch AS a\nCOPY . /\nFROM a\nCOPY --chown=nobody f /x\n", files: map[string]string{"etc/passwd": "-> /dev/zero", "f": "harmless\n"}},
		"a pipe that is copied":                               {dockerfile: copyAll, prepare: instead("p", pipe)},
		"a file that is named like a whiteout":                {dockerfile: copyAll, files: map[string]string{".wh.x": "", ".wh..wh..opq": "", "d/.wh...": ""}},
		"a Dockerfile that is elsewhere": {dockerfile: copyAll, request: func(r *build.Request, dir, _ string) {
			r.Files.Dockerfile = filepath.Join(dir, "../none/../../Dockerfile")
		}, fails: true},
		"a named context that is a file":                   {dockerfile: "FROM scratch\nCOPY --from=n / /\n", request: func(r *build.Request, _, host string) { r.Files.Named = map[string]string{"n": host + "/file"} }, fails: true},
		"a named context that is a URL of a file":          {dockerfile: "FROM scratch\nCOPY --from=n / /\n", request: func(r *build.Request, _, host string) { r.Files.Named = map[string]string{"n": "file://" + host} }, fails: true},
		"a link of a named context":                        {dockerfile: "FROM scratch\nCOPY --from=n l/file /x\n", files: map[string]string{"n/l": "-> HOST"}, request: func(r *build.Request, dir, _ string) { r.Files.Named = map[string]string{"n": dir + "/n"} }, fails: true},
		"an ignore file of a named context that is a link": {dockerfile: "FROM scratch\nCOPY --from=n . /\n", files: map[string]string{"n/.dockerignore": "-> HOST/file"}, request: func(r *build.Request, dir, _ string) { r.Files.Named = map[string]string{"n": dir + "/n"} }},
		"a URL of a file":                                  {dockerfile: "FROM scratch\nADD file://HOST/file /x\n", fails: true},
		"a repository of this machine":                     {dockerfile: "FROM scratch\nADD git@localhost:HOST /x\nADD file://HOST/.git /y\n", fails: true},
		"a base image of this machine's files":             {dockerfile: "FROM oci-layout://HOST\n", fails: true},
		"a stage that is copied from itself":               {dockerfile: "FROM scratch AS a\nCOPY --from=a / /\n", fails: true},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); a.hold(t) })
	}
}

// members is an archive of such members; HOST is replaced in names and links.
func members(t *testing.T, host string, list ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range list {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "harmless\n"
			if h.Name == "Dockerfile" {
				content = copyAll
			}
			h.Size = int64(len(content))
		}
		h.Name, h.Linkname, h.Mode = strings.ReplaceAll(h.Name, "HOST", host), strings.ReplaceAll(h.Linkname, "HOST", host), 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestAHostileArchiveWritesNothingOutside(t *testing.T) {
	dockerfile := tar.Header{Typeflag: tar.TypeReg, Name: "Dockerfile"}
	for name, list := range map[string][]tar.Header{
		"names that lead up":                    {{Typeflag: tar.TypeReg, Name: "../../../../../../../..HOST/file"}},
		"names that lead up from within":        {{Typeflag: tar.TypeReg, Name: "a/../../../../../../../..HOST/file"}},
		"absolute names":                        {{Typeflag: tar.TypeReg, Name: "HOST/file"}},
		"a file through a link":                 {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "HOST"}, {Typeflag: tar.TypeReg, Name: "l/file"}},
		"a file through a link that leads up":   {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../../../../../../..HOST"}, {Typeflag: tar.TypeReg, Name: "l/file"}},
		"a directory through a link":            {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "HOST"}, {Typeflag: tar.TypeDir, Name: "l/dir/new/"}},
		"a hard link to a file of the host":     {{Typeflag: tar.TypeLink, Name: "l", Linkname: "HOST/file"}},
		"a hard link that leads up":             {{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../../../../../..HOST/file"}},
		"a hard link to a link":                 {{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "HOST/file"}, {Typeflag: tar.TypeLink, Name: "l", Linkname: "s"}, {Typeflag: tar.TypeReg, Name: "l"}},
		"a link that replaces a directory":      {{Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeSymlink, Name: "d", Linkname: "HOST"}, {Typeflag: tar.TypeReg, Name: "d/file"}},
		"a whiteout that leads up":              {{Typeflag: tar.TypeReg, Name: "../../../../../../..HOST/.wh.file"}},
		"a whiteout of everything":              {{Typeflag: tar.TypeReg, Name: ".wh..wh..opq"}, {Typeflag: tar.TypeReg, Name: ".wh..."}},
		"an owner that is no number for a file": {{Typeflag: tar.TypeReg, Name: "f", Uid: 1 << 40, Gid: 1 << 40, Format: tar.FormatGNU}},
		"a link of a name that is all dots":     {{Typeflag: tar.TypeSymlink, Name: "...", Linkname: ".."}, {Typeflag: tar.TypeReg, Name: ".../.../file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("added", func(t *testing.T) {
				attempt{dockerfile: "FROM scratch\nADD a.tar /x/\n", prepare: func(t *testing.T, dir, host string) {
					write(t, filepath.Join(dir, "a.tar"), string(members(t, host, list...)))
				}}.hold(t)
			})
			t.Run("as the context", func(t *testing.T) {
				var host string
				attempt{prepare: func(_ *testing.T, _, h string) { host = h }, request: func(r *build.Request, _, _ string) {
					data := members(t, host, append([]tar.Header{dockerfile}, list...)...)
					r.Files = build.Files{Context: "-", Stdin: bytes.NewReader(data)}
				}}.hold(t)
			})
		})
	}
}

// An archive that ends early is no context, and a small one that becomes a large
// one neither.
func TestABrokenArchiveIsNoContext(t *testing.T) {
	whole := members(t, "", tar.Header{Typeflag: tar.TypeReg, Name: "Dockerfile"}, tar.Header{Typeflag: tar.TypeReg, Name: "a"})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(whole); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cut in a member":     whole[:700],
		"cut in a header":     whole[:1200],
		"compressed, and cut": packed.Bytes()[:packed.Len()-12],
	} {
		t.Run(name, func(t *testing.T) {
			attempt{request: func(r *build.Request, _, _ string) {
				r.Files = build.Files{Context: "-", Stdin: bytes.NewReader(data)}
			}, fails: true}.hold(t)
		})
	}
}
