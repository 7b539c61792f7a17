package build_test

import (
	"archive/tar"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// named builds text with one named context.
func (b *bench) named(text, name, value string) outcome {
	b.Helper()
	req := dockerfile(text)
	req.Files.Named = map[string]string{name: value}
	return b.try(req)
}

func TestANamedContextIsAnImageInALayout(t *testing.T) {
	l := newLayout(t)
	one := l.tag("one", l.image("a"))
	l.tag("latest", l.image("b"))
	for value, want := range map[string]string{
		"":                                  "b",
		":one":                              "a",
		":latest":                           "b",
		"@" + one.Digest.String():           "a",
		":no-matter@" + one.Digest.String(): "a",
		"/.:one":                            "a",
	} {
		b := newBench(t)
		for _, text := range []string{
			"FROM alpine:3\n", "FROM scratch\nCOPY --from=alpine:3 / /\n", "FROM alpine:3 AS x\nFROM scratch\nCOPY --from=x / /\n",
		} {
			o := b.named(text, "alpine:3", "oci-layout://"+l.dir+value)
			if o.err != nil {
				t.Fatalf("%s: %v", value, o.err)
			}
			equal(t, value, b.names(o.Image), []string{want})
		}
		o := b.named("FROM alpine:3\n", "alpine:3", "oci-layout://"+l.dir+value)
		if !slices.Contains(o.Image.Config.Config.Env, "FROM_LAYOUT="+want) {
			t.Errorf("%s: environment is %q", value, o.Image.Config.Config.Env)
		}
		if _, err := b.Images.Get(t.Context(), "alpine:3", nil); !errdefs.IsNotFound(err) {
			t.Errorf("%s: there is an image called alpine:3 now: %v", value, err)
		}
	}
}

func TestTheOnlyImageOfALayoutNeedsNoName(t *testing.T) {
	l := newLayout(t)
	l.tag("1.2", l.image("a"))
	b := newBench(t)
	o := b.named("FROM base\n", "base", "oci-layout://"+l.dir)
	if o.err != nil {
		t.Fatal(o.err)
	}
	equal(t, "tree", b.names(o.Image), []string{"a"})
}

func TestANamedContextReplacesAStage(t *testing.T) {
	l := newLayout(t)
	l.tag("latest", l.image("replaced"))
	b := newBench(t)
	o := b.named("FROM scratch AS tools\nCOPY <<E /own\nE\nFROM scratch\nCOPY --from=tools / /\n", "tools", "oci-layout://"+l.dir)
	if o.err != nil {
		t.Fatal(o.err)
	}
	equal(t, "tree", b.names(o.Image), []string{"replaced"})
}

func TestALayoutThatIsMissingSaysSo(t *testing.T) {
	l := newLayout(t)
	l.tag("one", l.image("a"))
	l.tag("two", l.image("b"))
	empty := t.TempDir()
	b := newBench(t)
	for value, class := range map[string]error{
		l.dir:           errdefs.ErrNotFound, // there are two, none is "latest"
		l.dir + ":none": errdefs.ErrNotFound,
		l.dir + "@" + digest.FromString("none").String(): errdefs.ErrNotFound,
		empty:                       errdefs.ErrNotFound,
		empty + "/none":             errdefs.ErrNotFound,
		"":                          errdefs.ErrInvalidArgument,
		":one":                      errdefs.ErrInvalidArgument,
		l.dir + "@sha256:1234":      errdefs.ErrInvalidArgument,
		l.dir + "@../../etc/passwd": errdefs.ErrInvalidArgument,
	} {
		o := b.named("FROM base\n", "base", "oci-layout://"+value)
		if !errors.Is(o.err, class) {
			t.Errorf("oci-layout://%s: error is %v, want one that is %v", value, o.err, class)
		}
	}
}

func TestANamedContextIsAStageOfTheSameFile(t *testing.T) {
	b := newBench(t)
	text := "FROM scratch AS one\nCOPY <<E /one\nE\nENV A=b\nFROM scratch AS two\nCOPY --from=base /one /two\nFROM base\nENV C=$A\nCOPY --from=base /one /copied\n"
	o := b.named(text, "base", "target:one")
	if o.err != nil {
		t.Fatal(o.err)
	}
	equal(t, "tree", b.names(o.Image), []string{"copied", "one"})
	if env := o.Image.Config.Config.Env; !slices.Contains(env, "A=b") || !slices.Contains(env, "C=b") {
		t.Errorf("environment is %q", env)
	}
	for value, class := range map[string]error{"target:": errdefs.ErrInvalidArgument, "target:two": nil, "target:none": nil} {
		o := b.named(text, "base", value)
		if o.err == nil || class != nil && !errors.Is(o.err, class) {
			t.Errorf("%s: error is %v", value, o.err)
		}
	}
}

func TestAStageForSeveralPlatformsIsANamedContext(t *testing.T) {
	b := newBench(t)
	req := dockerfile("FROM scratch AS one\nARG TARGETARCH\nCOPY <<E /one\n$TARGETARCH\nE\nENV A=$TARGETARCH\nFROM base\nCOPY --from=base /one /$A\n", "app")
	req.Language.Platform = "linux/amd64,linux/arm64"
	req.Files.Named = map[string]string{"base": "target:one"}
	b.build(req)
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := b.Images.Get(t.Context(), "app", &ocispec.Platform{OS: "linux", Architecture: arch})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, arch, b.names(img), []string{arch, "one"})
		equal(t, arch, b.read(img, arch), arch+"\n")
	}
}

func TestANamedContextIsAnImageByItsDigest(t *testing.T) {
	b := newBench(t)
	b.base("local", []*tar.Header{{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Linkname: "a\n"}})
	img, err := b.Images.Get(t.Context(), "local", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"local", "local:latest", "docker.io/library/local", "local@" + img.Target.Digest.String()} {
		o := b.named("FROM alpine\nCOPY --from=alpine /a /b\n", "alpine", "docker-image://"+ref)
		if o.err != nil {
			t.Fatalf("%s: %v", ref, o.err)
		}
		equal(t, ref, b.names(o.Image), []string{"a", "b"})
	}
	if o := b.named("FROM alpine\n", "alpine", "docker-image://local@"+digest.FromString("none").String()); o.err == nil {
		t.Error("another image is taken than the digest names")
	}
}

// As in BuildKit, what a server has is one file, called "context"; the main
// context is unpacked.
func TestANamedContextIsAFileOfAServer(t *testing.T) {
	data := tarOf(t, "a", "a\n")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
	}))
	defer server.Close()
	b := newBench(t)
	o := b.named("FROM scratch\nCOPY --from=files /context /a.tar\nADD <<E /b\nE\n", "files", server.URL+"/a.tar")
	if o.err != nil {
		t.Fatal(o.err)
	}
	equal(t, "content", b.read(o.Image, "a.tar"), string(data))
}

func TestANamedContextIsARepository(t *testing.T) {
	url, _ := repository(t, map[string]string{"a": "a\n", "sub/b": "b\n"})
	b := newBench(t)
	for value, want := range map[string][]string{
		url + "/repo.git": {"x", "x/a", "x/sub", "x/sub/b"}, url + "/repo.git#v1:sub": {"x", "x/b"},
	} {
		o := b.named("FROM scratch\nCOPY --from=files / /x/\n", "files", value)
		if o.err != nil {
			t.Fatal(o.err)
		}
		equal(t, value, b.names(o.Image), want)
	}
}
