package build_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/rootfs"
)

// sameFiles is a context; its Dockerfile has a step of every kind.
func sameFiles() map[string]string {
	return map[string]string{
		"Dockerfile": `FROM busybox AS one
RUN date +%N > /dev/null && mkdir -p /var/one && echo 1 > /var/one/f && touch -d '1999-01-01 00:00:00' /var/one/old
FROM busybox AS two
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,target=/ctx cp -p /ctx/src/a /var/a && cp -rp /ctx/src /var/src && echo "$SOURCE_DATE_EPOCH" > /var/epoch
FROM busybox
WORKDIR /made
COPY . /src
ADD files.tar /unpacked/
COPY <<EOF /etc/heredoc
text
EOF
COPY --from=one /var/one one
COPY --link --from=two /var/src /two/src
COPY --from=two /var/epoch /var/a ./
RUN rm /src/b && chmod 711 /src && ln /src/src/a /linked
LABEL a=b
CMD ["x"]
`,
		"src/a": "a\n", "src/deep/b": "b\n", "b": "b\n", "link": "-> b", "empty/": "",
	}
}

// addTar adds an archive, whose times are content.
func addTar(t *testing.T, dir string) string {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := w.WriteHeader(&tar.Header{Name: "f", Mode: 0o640, Uid: 7, ModTime: time.Unix(1_500_000_000, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "files.tar"), data.String())
	return dir
}

// age sets the times of all files in dir.
func age(t *testing.T, dir string, at time.Time) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A reproducible build depends on its input alone: not on where it is, when,
// how many steps run at once, nor on how layers become a file system.
func TestAReproducibleBuildIsTheSameEverywhere(t *testing.T) {
	digests := map[string]digest.Digest{}
	for name, change := range map[string]func(b *bench, r *build.Request){
		"first": func(*bench, *build.Request) {},
		"older files elsewhere": func(b *bench, r *build.Request) {
			age(b.T, r.Files.Context, time.Unix(1_000_000_000, 0))
		},
		"a year later": func(b *bench, r *build.Request) { b.now = start.AddDate(1, 0, 0) },
		"one worker":   func(_ *bench, r *build.Request) { r.Jobs = 1 },
		"8 workers":    func(_ *bench, r *build.Request) { r.Jobs = 8 },
		"other driver": func(b *bench, _ *build.Request) {
			b.Rootfs = func() (rootfs.Driver, error) {
				d, _, err := rootfs.Choose(b.Store, "overlay")
				return d, err
			}
		},
		"from a stream": func(b *bench, r *build.Request) {
			age(b.T, r.Files.Context, time.Unix(1_100_000_000, 0))
			r.Files.Stdin = archiveOf(b.T, r.Files.Context)
			r.Files.Context = "-"
		},
	} {
		b := runs(t)
		r := dir(addTar(t, directory(t, sameFiles())))
		r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		r.Attest = build.Attest{SBOM: true, Provenance: &build.Provenance{}}
		r.Reproducible = true
		change(b, &r)
		img := b.build(r).Image
		digests[name] = img.Target.Digest
		equal(t, "epoch in the image", b.read(img, "made/epoch"), "1700000000\n")
		checkTimes(b, img)
	}
	for name, d := range digests {
		equal(t, name, d, digests["first"])
	}
}

// SOURCE_DATE_EPOCH without more does as much for an image that has no
// attestations.
func TestAnEpochMakesTheSameImageOfFilesOfAnyAge(t *testing.T) {
	var digests []digest.Digest
	for _, at := range []time.Time{time.Unix(1_000_000_000, 0), time.Unix(1_700_000_001, 0), start.AddDate(1, 0, 0)} {
		b := runs(t)
		b.now = at
		if at.Before(start) {
			b.now = start
		}
		r := dir(addTar(t, directory(t, sameFiles())))
		age(t, r.Files.Context, at)
		r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		img := b.build(r).Image
		checkTimes(b, img)
		digests = append(digests, img.Target.Digest)
	}
	for _, d := range digests[1:] {
		equal(t, "digest", d, digests[0])
	}
}

// checkTimes looks whether what was made has the one time.
func checkTimes(b *bench, img *image.Image) {
	b.Helper()
	for name, want := range map[string]int64{
		"src/src/a": 1_700_000_000, "src": 1_700_000_000, "made": 1_700_000_000, "two/src/deep/b": 1_700_000_000, "etc/heredoc": 1_700_000_000,
		"unpacked/f": 1_500_000_000, "made/one/f": 1_700_000_000, "made/one/old": 915_148_800,
	} {
		info, err := b.tree(img).Lstat(name)
		if err != nil {
			b.Error(err)
		} else if got := info.ModTime().Unix(); got != want {
			b.Errorf("%s is of %d, want %d", name, got, want)
		}
	}
	if mode, err := b.tree(img).Lstat("src"); err == nil {
		equal(b.T, "mode", mode.Mode().Perm(), 0o711)
	}
}

// tarOf is the tar of a directory as a stranger's tar makes it.
func archiveOf(t *testing.T, dir string) io.Reader {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &data
}

// createdAt is the date of an image.
func createdAt(t *testing.T, o outcome) int64 {
	t.Helper()
	var config ocispec.Image
	if err := json.Unmarshal(o.Image.RawConfig, &config); err != nil {
		t.Fatal(err)
	}
	return config.Created.Unix()
}

// committed is the date of commits in these tests.
const committed = 1_600_000_000

func TestTheDateIsThatOfACleanCommit(t *testing.T) {
	const text = "FROM scratch\nCOPY a /\n"
	for name, test := range map[string]struct {
		change func(t *testing.T, repository string) (context string)
		want   int64
	}{
		"clean":   {func(_ *testing.T, dir string) string { return dir }, committed},
		"a part":  {func(_ *testing.T, dir string) string { return filepath.Join(dir, "part") }, committed},
		"touched": {func(t *testing.T, dir string) string { age(t, filepath.Join(dir, "part"), start); return dir }, committed},
		"changed": {func(t *testing.T, dir string) string { write(t, filepath.Join(dir, "a"), "b\n"); return dir }, 0},
		"removed": {func(t *testing.T, dir string) string {
			must(t, os.Remove(filepath.Join(dir, "a")))
			return dir + "/part"
		}, committed},
		"more": {func(t *testing.T, dir string) string { write(t, filepath.Join(dir, "new"), "b\n"); return dir }, 0},
		"ignored": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, ".git/info/exclude"), "new\n")
			write(t, filepath.Join(dir, "new"), "b\n")
			return dir
		}, committed},
		"staged": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "a"), "b\n")
			gitIn(t, dir, "add", "a")
			return dir
		}, 0},
		"changed elsewhere": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "a"), "b\n")
			return filepath.Join(dir, "part")
		}, committed},
		"no commit": {func(t *testing.T, dir string) string {
			must(t, os.RemoveAll(filepath.Join(dir, ".git")))
			gitIn(t, dir, "init", "-q")
			return dir
		}, 0},
		"no repository": {func(t *testing.T, dir string) string { must(t, os.RemoveAll(filepath.Join(dir, ".git"))); return dir }, 0},
		"detached":      {func(t *testing.T, dir string) string { gitIn(t, dir, "checkout", "-q", "--detach"); return dir }, committed},
		"packed":        {func(t *testing.T, dir string) string { gitIn(t, dir, "gc", "-q"); return dir }, committed},
		"added worktree": {func(t *testing.T, dir string) string {
			gitIn(t, dir, "worktree", "add", "-q", dir+"2")
			return dir + "2"
		}, committed},
		"split index":    {func(t *testing.T, dir string) string { gitIn(t, dir, "update-index", "--split-index"); return dir }, committed},
		"through a link": {func(t *testing.T, dir string) string { must(t, os.Symlink(dir, dir+"-link")); return dir + "-link" }, committed},
	} {
		t.Run(name, func(t *testing.T) {
			_, repo := repository(t, map[string]string{"Dockerfile": text, "a": "a\n", "part/Dockerfile": text, "part/a": "a\n"})
			r := dir(test.change(t, repo))
			r.Reproducible = true
			equal(t, "date", createdAt(t, newBench(t).build(r)), test.want)
		})
	}
}

func TestACommitThatCannotBeFoundIsNotLeftOut(t *testing.T) {
	_, repo := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	must(t, os.Mkdir(filepath.Join(repo, ".git/reftable"), 0o755), os.WriteFile(filepath.Join(repo, ".git/HEAD"), []byte("ref: refs/heads/.invalid\n"), 0o644))
	r := dir(repo)
	r.Reproducible = true
	if o := newBench(t).try(r); o.err == nil || !strings.Contains(o.err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("got %v", o.err)
	}
}

// The context may be a stranger's: git does nothing that it says.
func TestARepositoryRunsNothingWhenItsDateIsRead(t *testing.T) {
	_, repo := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n", ".gitattributes": "a filter=evil diff=evil\n"})
	trace := filepath.Join(t.TempDir(), "trace")
	program := filepath.Join(t.TempDir(), "evil")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\necho ran >> "+trace+"\ncat\n"), 0o755))
	for _, key := range []string{"core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv",
		"diff.external", "core.pager", "core.sshCommand", "gpg.program", "alias.status", "alias.cat-file", "core.hooksPath"} {
		value := program
		if strings.HasPrefix(key, "alias.") {
			value = "!" + program
		}
		gitIn(t, repo, "config", key, value)
	}
	write(t, filepath.Join(repo, ".git/hooks/post-index-change"), "#!/bin/sh\n"+program+"\n")
	must(t, os.Chmod(filepath.Join(repo, ".git/hooks/post-index-change"), 0o755))
	age(t, repo, start) // so that git must look into the file
	r := dir(repo)
	r.Reproducible = true
	equal(t, "date", createdAt(t, newBench(t).build(r)), int64(committed))
	if data, err := os.ReadFile(trace); err == nil {
		t.Errorf("a program of the repository ran: %s", data)
	}
}

// Nor does it keep a build waiting.
func TestARepositoryOfPipesAndDevicesIsNone(t *testing.T) {
	for _, name := range []string{"HEAD", "commondir", "refs/heads/main", "index"} {
		_, repo := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n"})
		r := dir(repo)
		r.Reproducible = true
		file := filepath.Join(repo, ".git", name)
		for what, put := range map[string]func() error{
			"a pipe":   func() error { return syscall.Mkfifo(file, 0o600) },
			"a device": func() error { return os.Symlink("/dev/zero", file) },
		} {
			must(t, os.RemoveAll(file), put())
			if at := createdAt(t, newBench(t).build(r)); at != 0 && name != "commondir" {
				t.Errorf("%s is %s: the date is %d", name, what, at)
			}
		}
	}
}

func TestAnEpochThatIsGivenWins(t *testing.T) {
	url, repo := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n", "dated": "ARG SOURCE_DATE_EPOCH=1500000000\nFROM scratch\nCOPY a /\n"})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "f", time.Unix(1_400_000_000, 0), strings.NewReader("f"))
	}))
	defer web.Close()
	staged := "FROM scratch AS source\nADD " + web.URL + "/f /\nFROM scratch\nCOPY --from=source f /\nCOPY Dockerfile /\n"
	for name, test := range map[string]struct {
		files        build.Files
		arg          string
		reproducible bool
		want         int64
	}{
		"nothing":                      {build.Files{Context: repo}, "", false, start.Unix()},
		"argument":                     {build.Files{Context: repo}, "1300000000", true, 1_300_000_000},
		"argument over the Dockerfile": {build.Files{Context: repo, Dockerfile: repo + "/dated"}, "1300000000", false, 1_300_000_000},
		"Dockerfile":                   {build.Files{Context: repo, Dockerfile: repo + "/dated"}, "", false, 1_500_000_000},
		"Dockerfile over the commit":   {build.Files{Context: repo, Dockerfile: repo + "/dated"}, "", true, 1_500_000_000},
		"context is a directory":       {build.Files{Context: repo}, "context", false, start.Unix()},
		"context is a repository":      {build.Files{Context: url + "/repo.git"}, "context", false, committed},
		"commit of a repository":       {build.Files{Context: url + "/repo.git"}, "", true, committed},
		"Dockerfile of a repository":   {build.Files{Context: url + "/repo.git", Dockerfile: "dated"}, "", true, 1_500_000_000},
		"a stage's download":           {build.Files{Context: directory(t, map[string]string{"Dockerfile": staged})}, "source", false, 1_400_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := build.Request{Files: test.files, Reproducible: test.reproducible}
			if test.arg != "" {
				r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": test.arg}
			}
			o := b.build(r)
			equal(t, "date of the image", createdAt(t, o), test.want)
			file := "a"
			if test.arg == "source" {
				file = "Dockerfile"
			}
			info, err := b.tree(o.Image).Lstat(file)
			must(t, err)
			if test.want != start.Unix() {
				equal(t, "date of a file", info.ModTime().Unix(), test.want)
			}
		})
	}
}

func TestAReproducibleBuildIsNotAheadOfTheClock(t *testing.T) {
	r := dockerfile("FROM scratch\nWORKDIR /x\n")
	r.Reproducible = true
	r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "9000000000"}
	if o := newBench(t).try(r); o.err == nil || !strings.Contains(o.err.Error(), "ahead of this machine's clock") {
		t.Errorf("got %v", o.err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
