package build_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/build"
)

// explained builds and returns the verdicts as lines.
func (b *bench) explained(req build.Request) string {
	b.Helper()
	req.Cache.Explain = true
	o := b.try(req)
	var lines []string
	for _, v := range o.Steps {
		lines = append(lines, v.String())
	}
	if o.err != nil {
		b.Logf("build: %v", o.err)
	}
	return strings.Join(lines, "\n")
}

func wantLines(t *testing.T, what, got string, want ...string) {
	t.Helper()
	if w := strings.Join(want, "\n"); got != w {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, w)
	}
}

func TestAMissNamesTheFilesThatChanged(t *testing.T) {
	b, ctx := newBench(t), application(t)
	const unknown = ": miss: nothing is known of an earlier build"
	wantLines(t, "first", b.explained(dir(ctx, "app")), copyFirst+unknown, copySrc+unknown, workdir+unknown)
	wantLines(t, "second", b.explained(dir(ctx, "app")), copyFirst+": hit", copySrc+": hit", workdir+": hit")
	write(t, filepath.Join(ctx, "src/1/file1.txt"), "changed\n")
	write(t, filepath.Join(ctx, "src/2/new.txt"), "new\n")
	if err := os.Remove(filepath.Join(ctx, "src/0/file0.txt")); err != nil {
		t.Fatal(err)
	}
	b.later()
	wantLines(t, "third", b.explained(dir(ctx, "app")), copyFirst+": hit",
		copySrc+": miss: file src/0/file0.txt was removed; file src/1/file1.txt changed; file src/2/new.txt was added",
		workdir+": miss: its input changed: "+copySrc)
}

// A build that nobody asked to explain itself is one to compare with, too.
func TestABuildThatExplainsNothingIsRemembered(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx))
	write(t, filepath.Join(ctx, "first"), "changed\n")
	if got := b.explained(dir(ctx)); !strings.Contains(got, copyFirst+": miss: file first changed") {
		t.Error(got)
	}
}

func TestAMissIsComparedWithTheNearestBuild(t *testing.T) {
	b, ctx := newBench(t), application(t)
	file := filepath.Join(ctx, "src/1/file1.txt")
	b.build(dir(ctx))
	for _, name := range []string{"src/2/file2.txt", "src/2/file5.txt"} {
		write(t, filepath.Join(ctx, name), "changed\n")
	}
	b.build(dir(ctx))
	write(t, filepath.Join(ctx, "src/2/file2.txt"), "content 2\n")
	write(t, filepath.Join(ctx, "src/2/file5.txt"), "content 5\n")
	write(t, file, "changed\n")
	if got := b.explained(dir(ctx)); !strings.Contains(got, copySrc+": miss: file src/1/file1.txt changed\n") {
		t.Error(got)
	}
}

func TestAMissNamesTheInstructionThatChanged(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx))
	write(t, filepath.Join(ctx, "Dockerfile"), "FROM scratch\nCOPY first /second\nCOPY src /src\nWORKDIR /src\n")
	got := b.explained(dir(ctx))
	if !strings.HasPrefix(got, `[1/3] COPY first /second: miss: the instruction changed: it was "COPY first /first"`+"\n") {
		t.Error(got)
	}
	write(t, filepath.Join(ctx, "Dockerfile"), "FROM scratch\nCOPY first /second\nCOPY first /zero\nCOPY src /src\nWORKDIR /src\n")
	if got := b.explained(dir(ctx)); !strings.Contains(got, "[3/4] COPY src /src: miss: its input changed: [2/4] COPY first /zero") {
		t.Error(got)
	}
}

func TestAMissNamesTheBuildArgumentThatChanged(t *testing.T) {
	needsRoot(t)
	b := newBench(t)
	b.busybox()
	text := "FROM busybox\nARG VERSION=1\nENV MODE=a\nRUN env > /tmp/v\n"
	request := func(version, text string) build.Request {
		r := dockerfile(text)
		if version != "" {
			r.Language.Args = map[string]string{"VERSION": version}
		}
		return r
	}
	b.build(request("", text))
	const run = "[2/2] RUN env > /tmp/v: miss: "
	wantLines(t, "argument", b.explained(request("2-secret", text)), run+"build argument VERSION changed")
	wantLines(t, "variable", b.explained(request("2-secret", strings.Replace(text, "MODE=a", "MODE=b", 1))), run+"environment variable MODE changed")
	wantLines(t, "user", b.explained(request("2-secret", strings.Replace(text, "ENV MODE=a", "ENV MODE=b\nUSER 1:1", 1))), run+"the user changed")
	all, err := b.Store.Cache("journal").All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if strings.Contains(string(r.Data), "2-secret") {
			t.Error("the value of an argument is in the journal")
		}
	}
}

func TestAMissNamesTheBaseThatChanged(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"Dockerfile": "FROM base\nCOPY file /\n", "file": "1\n"})
	b.base("base", []*tar.Header{{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Linkname: "1"}})
	b.build(dir(ctx))
	b.base("base", []*tar.Header{{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Linkname: "2"}})
	got := b.explained(dir(ctx))
	if !strings.HasPrefix(got, "[2/2] COPY file /: miss: the base image changed: it was docker.io/library/base:latest@sha256:") {
		t.Error(got)
	}
}

func TestAMissNamesTheFlagThatForbadeHits(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx))
	req := dir(ctx)
	req.Cache.Ignore = true
	if got := b.explained(req); !strings.HasPrefix(got, copyFirst+": miss: --no-cache was given\n") {
		t.Error(got)
	}
	write(t, filepath.Join(ctx, "Dockerfile"), "FROM scratch AS one\nCOPY first /\nFROM scratch AS two\nCOPY src /\nCOPY --from=one /first /\n")
	b.build(dir(ctx))
	req = dir(ctx)
	req.Cache.IgnoreStages = []string{"two"}
	got := b.explained(req)
	for _, want := range []string{"[one 1/1] COPY first /: hit", "[two 1/2] COPY src /: miss: --no-cache-filter", "[two 2/2] COPY --from=one /first /: miss: --no-cache-filter"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestAMissTellsOfARecordThatWasDropped(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx))
	records := b.Store.Cache("build")
	all, err := records.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key := range all {
		if err := records.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.explained(dir(ctx)); !strings.HasPrefix(got, copyFirst+": miss: it was built before; its record, or a layer of it, was dropped") {
		t.Error(got)
	}
	if _, err := b.Prune(t.Context(), build.PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if got := b.explained(dir(ctx)); !strings.HasPrefix(got, copyFirst+": miss: nothing is known of an earlier build; the build cache was pruned at 2026-01-02") {
		t.Error(got)
	}
}

func TestAMissNamesTheFileOfAStageThatChanged(t *testing.T) {
	b := newBench(t)
	text := "FROM scratch AS made\nCOPY bin /bin\nFROM scratch\nCOPY --from=made /bin /usr/bin\n"
	ctx := directory(t, map[string]string{"Dockerfile": text, "bin/a": "a\n", "bin/b": "b\n"})
	b.build(dir(ctx))
	write(t, filepath.Join(ctx, "bin/b"), "c\n")
	wantLines(t, "verdicts", b.explained(dir(ctx)), "[made 1/1] COPY bin /bin: miss: file bin/b changed",
		"[stage-1 1/1] COPY --from=made /bin /usr/bin: miss: file bin/b changed")
}

func TestAFailedBuildIsExplained(t *testing.T) {
	needsRoot(t)
	b := newBench(t)
	b.busybox()
	b.build(dockerfile("FROM busybox\nRUN true\n"))
	wantLines(t, "verdicts", b.explained(dockerfile("FROM busybox\nRUN false\n")),
		`[2/2] RUN false: miss: the instruction changed: it was "RUN true"`)
}
