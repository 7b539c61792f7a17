package build_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/build"
)

// application is a context whose first COPY rarely changes.
func application(t *testing.T) string {
	files := map[string]string{
		"Dockerfile":    "FROM scratch\nCOPY first /first\nCOPY src /src\nWORKDIR /src\n",
		"first":         "1\n",
		".dockerignore": "*.log\n",
	}
	for i := range 30 {
		files[fmt.Sprintf("src/%d/file%d.txt", i%3, i)] = fmt.Sprint("content ", i, "\n")
	}
	return directory(t, files)
}

var (
	copyFirst = "[1/3] COPY first /first"
	copySrc   = "[2/3] COPY src /src"
	workdir   = "[3/3] WORKDIR /src"
)

func TestAnUnchangedContextRebuildsNothing(t *testing.T) {
	b, ctx := newBench(t), application(t)
	first := b.build(dir(ctx, "app"))
	equal(t, "first build: ran", steps(first.ran), []string{copyFirst, copySrc, workdir})
	b.later()
	second := b.build(dir(ctx, "app"))
	equal(t, "second build: cached", steps(second.cached), []string{copyFirst, copySrc, workdir})
	equal(t, "second image", second.ID(), first.ID())
}

func TestAChangedFileRebuildsFromItsCopyOn(t *testing.T) {
	b, ctx := newBench(t), application(t)
	first := b.build(dir(ctx, "app"))
	b.later()
	write(t, filepath.Join(ctx, "src/1/file1.txt"), "changed\n")
	second := b.build(dir(ctx, "app"))
	equal(t, "cached", steps(second.cached), []string{copyFirst})
	equal(t, "ran", steps(second.ran), []string{copySrc, workdir})
	equal(t, "content", b.read(second.Image, "src/1/file1.txt"), "changed\n")
	if second.ID() == first.ID() {
		t.Error("the image is the old one")
	}
}

func TestATouchedFileIsStillCached(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx, "app"))
	at := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(ctx, "src/1/file1.txt"), at, at); err != nil {
		t.Fatal(err)
	}
	equal(t, "ran", steps(b.build(dir(ctx, "app")).ran), []string{})
}

// A file that changes right after it was read, to another content of the same
// size, is a changed file.
func TestAQuickChangeIsAChange(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "00"})
	for i := range 40 {
		content := fmt.Sprintf("%02d", i)
		write(t, filepath.Join(ctx, "file"), content)
		equal(t, "content", b.read(b.build(dir(ctx)).Image, "file"), content)
	}
}

func TestAChangedModeIsAChange(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx, "app"))
	if err := os.Chmod(filepath.Join(ctx, "src/1/file1.txt"), 0o755); err != nil {
		t.Fatal(err)
	}
	equal(t, "ran", steps(b.build(dir(ctx, "app")).ran), []string{copySrc, workdir})
}

func TestAnIgnoredFileIsNoChange(t *testing.T) {
	b, ctx := newBench(t), application(t)
	first := b.build(dir(ctx, "app"))
	write(t, filepath.Join(ctx, "new.log"), "log\n")
	second := b.build(dir(ctx, "app"))
	equal(t, "ran", steps(second.ran), []string{})
	equal(t, "image", second.ID(), first.ID())
}

func TestAnotherProcessUsesTheCache(t *testing.T) {
	b, ctx := newBench(t), application(t)
	first := b.build(dir(ctx, "app"))
	other := benchAt(t, b.Store.Root())
	other.later()
	second := other.build(dir(ctx, "app"))
	equal(t, "ran", steps(second.ran), []string{})
	equal(t, "image", second.ID(), first.ID())
}

func TestNoCacheRunsEveryStep(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx, "app"))
	req := dir(ctx, "app")
	req.Cache.Ignore = true
	equal(t, "cached", steps(b.build(req).cached), []string{})
}

func TestARecordWhoseLayersAreGoneIsNoHit(t *testing.T) {
	b, ctx := newBench(t), application(t)
	first := b.build(dir(ctx, "app"))
	for _, d := range first.Image.DiffIDs[1:] {
		if err := os.Remove(b.Store.Path(d)); err != nil {
			t.Fatal(err)
		}
	}
	second := b.build(dir(ctx, "app"))
	equal(t, "cached", steps(second.cached), []string{copyFirst})
	b.read(second.Image, "src/1/file1.txt")
}

// What a step takes from another stage counts by its content, not by how the
// stage came to it.
func TestACopyFromAStageHitsIfTheFilesAreTheSame(t *testing.T) {
	b := newBench(t)
	text := "FROM scratch AS made\nCOPY tool other /\nFROM scratch\nCOPY --from=made /tool /bin/tool\n"
	ctx := directory(t, map[string]string{"Dockerfile": text, "tool": "t\n", "other": "1\n"})
	b.build(dir(ctx, "app"))
	write(t, filepath.Join(ctx, "other"), "2\n")
	second := b.build(dir(ctx, "app"))
	equal(t, "ran", steps(second.ran), []string{"[made 1/1] COPY tool other /"})
	write(t, filepath.Join(ctx, "tool"), "u\n")
	third := b.build(dir(ctx, "app"))
	equal(t, "cached", steps(third.cached), []string{})
	equal(t, "content", b.read(third.Image, "bin/tool"), "u\n")
}

// Two paths of one stage are two things, though their last names are equal.
func TestTheSourcePathIsPartOfTheKey(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"a/x": "from a\n", "b/x": "from b\n", "Dockerfile": ""})
	for _, from := range []string{"a", "b"} {
		write(t, filepath.Join(ctx, "Dockerfile"),
			"FROM scratch AS all\nCOPY a /a\nCOPY b /b\nFROM scratch\nCOPY --from=all /"+from+"/x /x\n")
		o := b.build(dir(ctx))
		equal(t, "content", b.read(o.Image, "x"), "from "+from+"\n")
	}
}

func TestEqualInputsGiveEqualImagesInTwoStores(t *testing.T) {
	ctx := application(t)
	req := func() build.Request {
		r := dir(ctx, "app")
		r.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		return r
	}
	one, two := newBench(t), newBench(t)
	two.later()
	equal(t, "manifest", two.build(req()).Image.Manifest.Digest, one.build(req()).Image.Manifest.Digest)
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
