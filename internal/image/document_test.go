package image

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestDocumentsThatMeanTwoThingsAreRefused(t *testing.T) {
	config := fmt.Sprintf(`"config":{"mediaType":%q,"digest":%q,"size":0}`, ocispec.MediaTypeImageConfig, someDigest)
	manifest := `{"schemaVersion":2,` + config + `,"layers":[]}`
	for _, test := range []struct {
		name, mediaType, data string
		is                    func(error) bool
	}{
		{"manifest", ocispec.MediaTypeImageManifest, manifest, nil},
		{"manifest of Docker's", dockerManifest, `{"schemaVersion":2,"mediaType":"` + dockerManifest + `",` + config + `,"layers":[]}`, nil},
		{"manifest without a type", "", manifest, nil},
		{"manifest with parameters", ocispec.MediaTypeImageManifest + "; charset=utf-8", manifest, nil},
		{"index", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, nil},
		{"both", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`, errdefs.IsInvalidArgument},
		{"both, as an index", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`, errdefs.IsInvalidArgument},
		{"neither", "", `{"schemaVersion":2}`, errdefs.IsInvalidArgument},
		{"another type inside", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + config + `,"layers":[]}`, errdefs.IsInvalidArgument},
		{"key twice", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"layers":[],"layers":[]}`, errdefs.IsInvalidArgument},
		{"key in another case", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"Layers":[]}`, errdefs.IsInvalidArgument},
		{"key twice below", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"layers":[],"annotations":{"a":"1","a":"2"}}`, errdefs.IsInvalidArgument},
		{"more behind it", ocispec.MediaTypeImageManifest, manifest + "{}", errdefs.IsInvalidArgument},
		{"byte order mark", ocispec.MediaTypeImageManifest, "\ufeff" + manifest, errdefs.IsInvalidArgument},
		{"array", ocispec.MediaTypeImageManifest, "[]", errdefs.IsInvalidArgument},
		{"nothing", ocispec.MediaTypeImageManifest, "", errdefs.IsInvalidArgument},
		{"deep nesting", ocispec.MediaTypeImageManifest, `{"a":` + strings.Repeat("[", 1_000_000), errdefs.IsInvalidArgument},
		{"schema 1", dockerSchema1 + "prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, errdefs.IsNotImplemented},
		{"schema 1 without a type", "", `{"schemaVersion":1,"fsLayers":[]}`, errdefs.IsNotImplemented},
		{"another kind", "application/vnd.cncf.helm", `{"schemaVersion":2}`, errdefs.IsNotImplemented},
		{"artifact", ocispec.MediaTypeImageManifest, strings.Replace(manifest, ocispec.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json", 1), errdefs.IsNotImplemented},
		{"digest that is a path", ocispec.MediaTypeImageManifest, strings.Replace(manifest, someDigest, "sha256:../../etc/passwd", 1), errdefs.IsInvalidArgument},
		{"digest in upper case", ocispec.MediaTypeImageManifest, strings.Replace(manifest, someDigest, strings.ToUpper(someDigest), 1), errdefs.IsInvalidArgument},
		{"digest that is empty", ocispec.MediaTypeImageManifest, strings.Replace(manifest, someDigest, "", 1), errdefs.IsInvalidArgument},
		{"digest of md5", ocispec.MediaTypeImageManifest, strings.Replace(manifest, someDigest, "md5:d41d8cd98f00b204e9800998ecf8427e", 1), errdefs.IsInvalidArgument},
		{"size below zero", ocispec.MediaTypeImageManifest, strings.Replace(manifest, `"size":0`, `"size":-1`, 1), errdefs.IsInvalidArgument},
		{"config that is huge", ocispec.MediaTypeImageManifest, strings.Replace(manifest, `"size":0`, `"size":1073741824`, 1), errdefs.IsInvalidArgument},
		{"digest in the index that is a path", ocispec.MediaTypeImageIndex, `{"manifests":[{"digest":"sha256:../x","size":1}]}`, errdefs.IsInvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			desc := describe(test.mediaType, []byte(test.data))
			start := time.Now()
			_, err := parseDocument(desc, []byte(test.data))
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %s", took)
			}
			switch {
			case test.is == nil && err != nil:
				t.Error(err)
			case test.is != nil && (err == nil || !test.is(err)):
				t.Errorf("got %v", err)
			case err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 500):
				t.Errorf("error is not one line: %q", err)
			}
		})
	}
}

func TestDocumentsAreVerifiedBeforeTheyAreRead(t *testing.T) {
	data := []byte(`{"schemaVersion":2,"manifests":[]}`)
	desc := describe(ocispec.MediaTypeImageIndex, data)
	desc.Size++
	if _, err := parseDocument(desc, data); !errdefs.IsDataLoss(err) {
		t.Errorf("wrong size: %v", err)
	}
	desc = describe(ocispec.MediaTypeImageIndex, data)
	desc.Digest = digest.FromString("other")
	if _, err := parseDocument(desc, data); !errdefs.IsDataLoss(err) {
		t.Errorf("wrong digest: %v", err)
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
	f.Add("", []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		doc, err := parseDocument(describe(mediaType, data), data)
		if err == nil && (doc.index == nil) == (doc.manifest == nil) {
			t.Error("neither or both")
		}
		if err == nil && doc.manifest != nil {
			for _, l := range doc.manifest.Layers {
				_ = short(l.Digest)
			}
		}
		_, _ = parseConfig(describe("", data), data, -1)
	})
}

func TestNamesAreDockers(t *testing.T) {
	for _, test := range []struct{ given, full, familiar string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"},
		{"team/app", "docker.io/team/app:latest", "team/app:latest"},
		{"localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"},
		{"ghcr.io/o/r:v1", "ghcr.io/o/r:v1", "ghcr.io/o/r:v1"},
		{"index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"},
		{"busybox:1@" + someDigest, "docker.io/library/busybox@" + someDigest, "busybox@" + someDigest},
	} {
		named, err := ParseName(test.given)
		if err != nil {
			t.Error(err)
			continue
		}
		if named.String() != test.full || Familiar(test.full) != test.familiar {
			t.Errorf("%s is %s, familiar %s", test.given, named, Familiar(test.full))
		}
		repo, tag, d := splitRef(test.full)
		if joined := repo + strings.Repeat(":", min(1, len(tag))) + tag + strings.Repeat("@", min(1, len(d))) + d.String(); joined != test.full {
			t.Errorf("%s was split into %q %q %q", test.full, repo, tag, d)
		}
	}
	for _, bad := range []string{"", "UPPER", "a//b", "-x", "x:", "x:@", "x@sha256:12", "a/../b", strings.Repeat("0", 64), "x:" + strings.Repeat("a", 129)} {
		if _, err := ParseName(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
