package build_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
)

const both = "linux/s390x,linux/riscv64,linux/arm/v7"

// platformContext is built with another file of the context for each platform,
// after a step that they share.
func platformContext(t *testing.T) string {
	return directory(t, map[string]string{
		"Dockerfile": "FROM --platform=$BUILDPLATFORM scratch AS shared\nCOPY shared /\n" +
			"FROM scratch\nARG TARGETARCH\nCOPY own-$TARGETARCH /own\nCOPY --from=shared /shared /\n",
		"shared": "shared", "own-s390x": "s390x", "own-riscv64": "riscv64", "own-arm": "arm",
	})
}

func (b *bench) get(name, platform string) *image.Image {
	b.Helper()
	p, err := image.ParsePlatform(platform)
	if err != nil {
		b.Fatal(err)
	}
	img, err := b.Images.Get(b.Context(), name, &p)
	if err != nil {
		b.Fatal(err)
	}
	return img
}

func TestEachPlatformHasItsOwnFilesAndWhatIsShared(t *testing.T) {
	b := newBench(t)
	req := dir(platformContext(t), "app:v1")
	req.Language.Platform = both
	for _, again := range []bool{false, true} {
		req.Cache.Ignore = again
		o := b.build(req)
		shared := slices.DeleteFunc(slices.Clone(o.ran), func(name string) bool { return !strings.HasSuffix(name, "COPY shared /") })
		if len(shared) != 1 {
			t.Errorf("without a cache %t, the shared step ran as %q", again, shared)
		}
		if o.Config != "" || o.Target.MediaType != ocispec.MediaTypeImageIndex || o.ID() != o.Target.Digest {
			t.Errorf("the result is %+v with config %q", o.Target, o.Config)
		}
	}
	for _, platform := range strings.Split(both, ",") {
		img := b.get("app:v1", platform)
		if got := b.read(img, "own"); got != img.Config.Architecture {
			t.Errorf("%s has the file of %q", platform, got)
		}
		if got := b.read(img, "shared"); got != "shared" {
			t.Errorf("%s shares %q", platform, got)
		}
	}
}

func TestOutputsOfOneBuildAreTheSame(t *testing.T) {
	b := newBench(t)
	var one, other, packed bytes.Buffer
	req := dir(platformContext(t))
	req.Language.Platform = both
	req.Attest.SBOM = true
	req.Outputs = []build.Output{
		{Kind: build.OutputOCI, To: &one},
		{Kind: build.OutputOCI, To: &packed, Form: image.Form{Compression: layer.Zstd}},
		{Kind: build.OutputImage, Names: []string{"app:v1"}},
		{Kind: build.OutputOCI, To: &other},
	}
	o := b.build(req)
	if !bytes.Equal(one.Bytes(), other.Bytes()) || bytes.Equal(one.Bytes(), packed.Bytes()) {
		t.Errorf("archives have %d, %d and, packed, %d bytes", one.Len(), other.Len(), packed.Len())
	}
	if !slices.Equal(o.Names, []string{"docker.io/library/app:v1"}) {
		t.Errorf("names are %q", o.Names)
	}
	// What is said of an image names it: the subjects differ with the names.
	if o.Image.Target.Digest == o.Target.Digest {
		t.Error("an image without a name is said to have one")
	}
	loaded, err := b.Images.Load(b.Context(), &packed, image.LoadOptions{})
	if err != nil || len(loaded) != 1 {
		t.Errorf("loaded %v, error %v", loaded, err)
	}
}

func TestAnnotationsOfAPlatformThatIsNotBuiltAreAnError(t *testing.T) {
	b := newBench(t)
	z := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	for where, a := range map[string]build.Annotation{
		"no platform linux/s390x found":     {Where: "manifest", Platform: &z, Key: "k", Value: "v"},
		"not supported for single platform": {Where: "index", Key: "k", Value: "v"},
	} {
		req := dockerfile("FROM scratch\nLABEL a=b\n", "app:v1")
		req.Outputs[0].Annotations = []build.Annotation{a}
		o := b.try(req)
		if !errdefs.IsInvalidArgument(o.err) || !strings.Contains(o.err.Error(), where) {
			t.Errorf("%+v: error is %v", a, o.err)
		}
	}
	if _, err := b.Images.Get(b.Context(), "app:v1", nil); !errdefs.IsNotFound(err) {
		t.Errorf("an image was named all the same: %v", err)
	}
}

func TestADockerArchiveOfSeveralPlatformsIsRefusedBeforeTheBuild(t *testing.T) {
	b := newBench(t)
	req := dir(platformContext(t))
	req.Language.Platform = both
	req.Outputs = []build.Output{{Kind: build.OutputDocker, To: new(bytes.Buffer)}}
	o := b.try(req)
	if o.err == nil || !strings.Contains(o.err.Error(), "docker exporter does not currently support exporting manifest lists") || len(o.ran) > 0 {
		t.Errorf("error is %v, %q ran", o.err, o.ran)
	}
}

func TestFilesOfOneNameDoNotMeet(t *testing.T) {
	b := newBench(t)
	together := false
	req := dir(platformContext(t))
	req.Language.Platform = both
	req.Outputs = []build.Output{{Kind: build.OutputTar, To: new(bytes.Buffer), Split: &together}}
	if o := b.try(req); !errors.Is(o.err, errdefs.ErrAlreadyExists) {
		t.Errorf("error is %v", o.err)
	}
	var out bytes.Buffer
	req.Outputs = []build.Output{{Kind: build.OutputTar, To: &out}}
	b.build(req)
	got := tarFiles(t, &out)
	want := map[string]string{}
	for dir, arch := range map[string]string{"linux_s390x": "s390x", "linux_riscv64": "riscv64", "linux_arm_v7": "arm"} {
		want[dir+"/own"], want[dir+"/shared"] = arch, "shared"
	}
	if !maps.Equal(got, want) {
		t.Errorf("the tar has %v, want %v", got, want)
	}
}

// tarFiles are the regular files of a tar, with their content.
func tarFiles(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		var data []byte
		if err == nil {
			data, err = io.ReadAll(in)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = string(data)
		}
	}
}
