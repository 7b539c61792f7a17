package build_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/build"
)

// verify is the request to build a Dockerfile twice.
func verify(text string, names ...string) build.Request {
	r := dockerfile(text, names...)
	r.Verify = true
	r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
	return r
}

// differences are those that o was refused for.
func differences(t *testing.T, o outcome) *build.DifferenceError {
	t.Helper()
	var d *build.DifferenceError
	if !errors.As(o.err, &d) {
		t.Fatalf("built twice: want differences, have %v\n%s", o.err, o.log)
	}
	return d
}

// either runs one command in the first build and another in the second: what a
// cache mount holds stays from one to the other.
func either(first, second string) string {
	id := crc32.ChecksumIEEE([]byte(first + " or " + second))
	return fmt.Sprintf("RUN --network=none --mount=type=cache,id=%d,target=/c if [ ! -e /c/again ]; then touch /c/again; %s; else %s; fi", id, first, second)
}

// TestVerifyNamesTheFileThatDiffers has one step a difference; F is a name of the
// step's own.
func TestVerifyNamesTheFileThatDiffers(t *testing.T) {
	cases := []struct{ step, path, how string }{
		{"RUN date > /F", "/F", "content differs at offset "},
		{"RUN head -c 16 /dev/urandom > /F", "/F", "content differs at offset "},
		{"RUN mkdir /F && touch /F/x && tar -c -C / -f /F.tar F && rm -r /F", "/F.tar", "content differs at offset "},
		{"RUN mkdir /F && touch /F/x && tar -c -C / F | gzip -9 > /F.tgz && rm -r /F", "/F.tgz", "content differs at offset "},
		{"RUN touch /tmp/F$(head -c 8 /dev/urandom | md5sum | cut -c 1-16).pyc", "/tmp/F", "time only"},
		{either("echo abc > /F", "echo abcd > /F"), "/F", `content differs at offset 3: "\n", then "d\n"`},
		{either("printf abc > /F", "printf ab > /F"), "/F", `content differs at offset 2: "c", then the end`},
		{either("dd if=/dev/zero bs=1024 count=300 of=/F; echo a >> /F", "dd if=/dev/zero bs=1024 count=300 of=/F; echo b >> /F"), "/F", `content differs at offset 307200: "a\n", then "b\n"`},
		{either("touch -d @1000000000 /F", "touch -d @1000000001 /F"), "/F", "time 2001-09-09T01:46:40Z, then 2001-09-09T01:46:41Z"},
		{either("touch /F; chmod 4755 /F", "touch /F"), "/F", "mode 4755, then 0644"},
		{either("touch /F; chown 5:6 /F", "touch /F"), "/F", "owner 5:6, then 0:0"},
		{either("touch /F", "true"), "/F", "is there the first time only"},
		{either("true", "mkdir /F; touch /F/x"), "/F", "is there the second time only"},
		{either("touch /F", "mkdir /F"), "/F", "is a file, then a directory"},
		{either("ln -s a /F", "ln -s b /F"), "/F", `link to "a", then to "b"`},
		{either("echo a > /Fa; ln /Fa /Fb", "echo a > /Fa; echo a > /Fb"), "/Fb", `hard link of "/Fa", then of "/Fb"`},
		{either("true", "rm /etc/passwd"), "/etc", "is there the second time only"},
		{either("rm /etc/group", "rm /etc/group; touch /etc/group"), "/etc/group", "is a removal, then a file"},
		{either("true", "chmod 711 /"), "/", "mode 0755, then 0711"},
		{either("mkfifo /F", "mknod /F c 1 3"), "/F", "is a pipe, then a device"},
	}
	b := runs(t)
	for group := range slices.Chunk(cases, 10) {
		text := "FROM busybox\n"
		for n, c := range group {
			text += strings.ReplaceAll(c.step, "F", fmt.Sprint("f", n)) + "\n"
		}
		o := b.try(verify(text))
		list := differences(t, o).Differences
		for n, c := range group {
			path, how := strings.ReplaceAll(c.path, "F", fmt.Sprint("f", n)), strings.ReplaceAll(c.how, "F", fmt.Sprint("f", n))
			i := slices.IndexFunc(list, func(d build.Difference) bool { return d.Line == 2+n })
			if i < 0 {
				t.Errorf("line %d makes no difference, want %s: %s", 2+n, path, how)
				continue
			}
			d := list[i]
			if !strings.HasPrefix(d.Path, path) || !strings.Contains(d.How, how) || d.File != "Dockerfile" {
				t.Errorf("got %v, want %s: %s in line %d", d, path, how, 2+n)
			}
		}
		var excerpt strings.Builder
		if err := build.Excerpt(&excerpt, o.err); err != nil || !strings.Contains(excerpt.String(), "2 | >>> RUN") {
			t.Errorf("the Dockerfile is shown as %v\n%s", err, excerpt.String())
		}
	}
}

func TestWhatIsTheSameTwiceIsVerified(t *testing.T) {
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 2 {
			fmt.Fprint(w, "another") // never seen: the second build has what the first one got
		}
	}))
	defer web.Close()
	b := runs(t)
	context := directory(t, map[string]string{"Dockerfile": `FROM busybox AS unused
RUN date > /stamp
FROM busybox AS one
RUN echo 1 > /one && mkdir /many && for i in 1 2 3; do echo $i > /many/$i; done && touch /old -d 1999-01-01
FROM busybox
COPY . /src
ADD ` + web.URL + `/f /
COPY --from=one /one /many /copied/
RUN rm -r /var && mkdir /var && chmod 711 /tmp
`, "a": "a"})
	r := dir(context, "app")
	r.Verify = true
	o := b.build(r)
	if n := asked.Load(); n != 1 {
		t.Errorf("the download was asked for %d times", n)
	}
	asked.Store(10)
	equal(t, "steps that ran", len(steps(o.ran)), 1+2*5) // and the download
	again := b.build(r)                                  // the first time from the cache
	equal(t, "image", again.Image.Target.Digest, o.Image.Target.Digest)
	plain := dir(context)
	plain.Reproducible = true
	equal(t, "image without --verify", b.build(plain).Image.Target.Digest, o.Image.Target.Digest)
}

// What a step made long ago is compared, too.
func TestVerifyLooksAtWhatWasCached(t *testing.T) {
	b := runs(t)
	r := verify("FROM busybox\n" + either("echo 1 > /f", "echo 2 > /f") + "\n")
	r.Verify, r.Reproducible = false, true
	b.build(r)
	r = verify("FROM busybox\n" + either("echo 1 > /f", "echo 2 > /f") + "\n")
	equal(t, "file", differences(t, b.try(r)).Differences[0].Path, "/f")
}

func TestWhatDiffersChangesNoNameAndWritesNothing(t *testing.T) {
	b := runs(t)
	before := b.build(dockerfile("FROM busybox\nRUN echo before\n", "app")).Image
	out := filepath.Join(t.TempDir(), "out")
	r := verify("FROM busybox AS one\nRUN date > /stamp\nFROM busybox\nCOPY --from=one /stamp /copy\n", "app")
	r.Outputs = append(r.Outputs, build.Output{Kind: build.OutputLocal, Dir: out})
	d := differences(t, b.try(r))
	equal(t, "files", []string{d.Differences[0].Path, d.Differences[1].Path}, []string{"/stamp", "/copy"})
	equal(t, "lines", []int{d.Differences[0].Line, d.Differences[1].Line}, []int{2, 4})
	now, err := b.Images.Get(t.Context(), "app", nil)
	must(t, err)
	equal(t, "image called app", now.ConfigDigest, before.ConfigDigest)
	if _, err := os.Lstat(out); err == nil {
		t.Error("files were written")
	}
	// The stage that is not asked for may do what it likes.
	r = verify("FROM busybox AS bad\nRUN date > /stamp\nFROM busybox AS good\nRUN echo a > /a\nFROM bad\n", "app")
	r.Language.Target = "good"
	b.build(r)
}

func TestManyDifferencesAreCounted(t *testing.T) {
	b := runs(t)
	d := differences(t, b.try(verify("FROM busybox\n"+either("for i in $(seq 1 30); do echo a > /$i; done", "for i in $(seq 1 30); do echo b > /$i; done")+"\n")))
	equal(t, "named", len(d.Differences), 11)
	equal(t, "more", d.More, 19)
}

// A program that fails the second time fails the build.
func TestTheSecondBuildMayFail(t *testing.T) {
	b := runs(t)
	o := b.try(verify("FROM busybox\n" + either("true", "exit 7") + "\n"))
	if o.err == nil || !strings.Contains(o.err.Error(), "build again") || !strings.Contains(o.err.Error(), "exit code: 7") {
		t.Errorf("got %v", o.err)
	}
}

// Without RUN nothing has to be waited for, and the clock has no say.
func TestVerifyNeedsNoRun(t *testing.T) {
	b := newBench(t)
	b.Now = func() time.Time { b.later(); return b.clock() }
	r := dir(directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\nWORKDIR /x\nADD <<EOF /y\nz\nEOF\n", "a": "a"}))
	r.Verify = true
	b.build(r)
}

// A step that a cache of others spares the first build is made by the second
// one, and what was taken of it is compared.
func TestVerifyComparesWithACacheOfOthers(t *testing.T) {
	for name, random := range map[string]bool{"the same": false, "another": true} {
		t.Run(name, func(t *testing.T) {
			one, two := newBench(t), newBench(t)
			ctx := twoStages(t, one, two)
			file := filepath.Join(ctx, "Dockerfile")
			if !random {
				write(t, file, strings.ReplaceAll(string(read(t, file)), "head -c 16 /dev/urandom", "echo same"))
			}
			place := build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir()}
			r := dir(ctx)
			r.Reproducible, r.Cache.To = true, []build.CachePlace{place}
			first := one.build(r)
			r = dir(ctx)
			r.Verify, r.Cache.From = true, []build.CachePlace{place}
			o := two.try(r)
			if !random {
				must(t, o.err)
				equal(t, "layers", o.Image.DiffIDs, first.Image.DiffIDs)
				return
			}
			d := differences(t, o).Differences
			equal(t, "files", []string{d[0].Path, d[1].Path}, []string{"/made", "/top"})
			equal(t, "lines", []int{d[0].Line, d[1].Line}, []int{5, 6})
		})
	}
}
