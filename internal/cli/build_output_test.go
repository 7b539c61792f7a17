package cli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
)

func TestOutputsMeanWhatBuildxMeans(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		flags buildFlags
		want  []buildOutput
	}{
		{buildFlags{}, []buildOutput{{typ: "image", Output: build.Output{Kind: "image"}}}},
		{buildFlags{outputs: []string{"out"}}, []buildOutput{{typ: "local", dest: "out", tar: true, Output: build.Output{Kind: "local"}}}},
		{buildFlags{outputs: []string{"-"}}, []buildOutput{{typ: "tar", dest: "-", tar: true, Output: build.Output{Kind: "tar"}}}},
		{buildFlags{outputs: []string{"type=local,dest=d,platform-split=false"}}, []buildOutput{
			{typ: "local", dest: "d", tar: true, Output: build.Output{Kind: "local", Split: &no}},
		}},
		{buildFlags{outputs: []string{"type=tar,dest=d,platform-split=true"}}, []buildOutput{
			{typ: "tar", dest: "d", tar: true, Output: build.Output{Kind: "tar", Split: &yes}},
		}},
		{buildFlags{tags: []string{"a", "b"}, push: true}, []buildOutput{
			{typ: "image", Output: build.Output{Kind: "image", Names: []string{"a", "b"}, Push: true}},
		}},
		{buildFlags{tags: []string{"a"}, push: true, outputs: []string{"type=oci,dest=x,name=other"}}, []buildOutput{
			{typ: "oci", dest: "x", tar: true, Output: build.Output{Kind: "oci", Names: []string{"a"}}},
			{typ: "image", Output: build.Output{Kind: "image", Names: []string{"a"}, Push: true}},
		}},
		{buildFlags{outputs: []string{"type=registry,name=a,compression=zstd,compression-level=19,force-compression=1"}}, []buildOutput{
			{typ: "registry", tar: true, Output: build.Output{
				Kind: "image", Names: []string{"a"}, Push: true, Force: true, Form: image.Form{Compression: layer.Zstd, Level: 19},
			}},
		}},
		{buildFlags{outputs: []string{`type=image,"name=a,b",push=true,compression=uncompressed,oci-mediatypes=false`}}, []buildOutput{
			{typ: "image", tar: true, Output: build.Output{Kind: "image", Names: []string{"a", "b"}, Push: true, Plain: true, Form: image.Form{Docker: true}}},
		}},
		{buildFlags{outputs: []string{"type=docker"}, load: true}, []buildOutput{{typ: "docker", tar: true, Output: build.Output{Kind: "docker"}}}},
		{buildFlags{outputs: []string{"type=oci,tar=false,dest=d,compression-level=1,annotation.A.b=c"}}, []buildOutput{
			{typ: "oci", dest: "d", Output: build.Output{
				Kind: "oci", Form: image.Form{Compression: layer.Gzip, Level: 1},
				Annotations: []build.Annotation{{Where: "manifest", Key: "A.b", Value: "c"}},
			}},
		}},
	} {
		got, err := c.flags.parseOutputs()
		if err != nil {
			t.Errorf("%v: %v", c.flags.outputs, err)
		} else if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v:\n got %+v\nwant %+v", c.flags.outputs, got, c.want)
		}
	}
}

func TestWrongOutputsAreNamed(t *testing.T) {
	for value, want := range map[string]string{
		"type=oci,dest=x,other=1":             `type=oci has no attribute "other"; it has annotation.KEY`,
		"type=local,dest=x,compression=gzip":  `type=local has no attribute "compression"; it has dest, platform-split`,
		"type=local,dest=x,annotation.a=b":    `has no attribute "annotation.a"`,
		"type=image,annotations=b":            "want annotation-TYPE[PLATFORM].KEY",
		"type=image,annotation-index[x].a=b":  "annotation type index has no platform",
		"type=image,compression-level=x":      "compression-level is a number",
		"type=image,compression-level=-1":     "compression-level is a number",
		"type=image,push=perhaps":             "push is true or false",
		"type=docker,tar=false,dest=x":        "tar=false is for type=oci",
		"type=other":                          "type is image, registry",
		"dest=x":                              "type is required",
		"type=image,push":                     "want KEY=VALUE",
		"type=image,compression=estargz":      "not implemented",
		"type=image,store=false":              "not implemented",
		"type=oci,dest=x,compression-level=9": "",
	} {
		_, err := parseOutput(value)
		if got := errorText(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	if _, err := parseOutput("type=image,compression=estargz"); !errdefs.IsNotImplemented(err) {
		t.Error("estargz is taken for a slip")
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAnnotationsNameTheirPlaces(t *testing.T) {
	arm := ocispec.Platform{OS: "linux", Architecture: "arm64"}
	got, err := annotationFlags([]string{"", "a=b=c", "index,manifest-descriptor[linux/arm64]:k:l=v"})
	want := []build.Annotation{
		{Where: "manifest", Key: "a", Value: "b=c"},
		{Where: "index", Key: "k:l", Value: "v"},
		{Where: "manifest-descriptor", Platform: &arm, Key: "k:l", Value: "v"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v", got, err)
	}
	for _, value := range []string{"a", "=b", "x:a=b", "manifest[:a=b", "manifest[no such]:a=b"} {
		if _, err := annotationFlags([]string{value}); err == nil {
			t.Errorf("%q is taken", value)
		}
	}
}

func TestPlatformsAreListedOnce(t *testing.T) {
	got, err := buildPlatforms([]string{"linux/arm64/v8,local", " linux/amd64 ", "", "linux/arm/v7"}, "linux/amd64")
	if err != nil || got != "linux/arm64,linux/amd64,linux/arm/v7" {
		t.Errorf("got %q, error %v", got, err)
	}
}
