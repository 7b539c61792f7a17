package store

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestNamesHaveFilesOfTheirOwn(t *testing.T) {
	for name, file := range map[string]string{
		"docker.io/library/busybox:latest":   "docker.io/library/busybox/:latest",
		"localhost:5000/myrepo/myapp:v1":     "localhost:5000/myrepo/myapp/:v1",
		"[::1]:5000/a:b":                     "[::1]:5000/a/:b",
		"a/b:c":                              "a/b/:c",
		"a/b/c:latest":                       "a/b/c/:latest",
		"@sha256:" + hex64:                   "@sha256:" + hex64,
		"ghcr.io/x/y@sha256:" + hex64:        "ghcr.io/x/y/@sha256:" + hex64,
		"h.i/x@sha512:" + hex64 + hex64:      "h.i/x/@sha512:" + hex64 + hex64,
		"_served/x/y:1":                      "_served/x/y/:1",
		"Example.COM/a__b/c.d-e---f:V_1.x-y": "Example.COM/a__b/c.d-e---f/:V_1.x-y",
	} {
		n, err := parseName(name)
		if got := filepath.Join(n.dir, n.leaf); err != nil || got != file || n.String() != name {
			t.Errorf("%s: file %s, name %s, %v", name, got, n, err)
		}
	}
}

func TestWhatIsNoWholeNameIsRefused(t *testing.T) {
	for _, name := range []string{
		"", ":", "@", "/", "busybox", "busybox:latest", "docker.io/library/busybox", "localhost:5000/a",
		"docker.io/a:b@sha256:" + hex64, "docker.io/a@sha256:" + hex64[1:], "docker.io/a@md5:" + hex64[:32],
		"docker.io/../a:b", "docker.io//a:b", "docker.io/./a:b", "docker.io/a/:b", "../a:b", "/a/b:c",
		"docker.io/A:b", "docker.io/a..b:c", "docker.io/a___b:c", "docker.io/-a:b", "docker.io/a_:b", "docker.io/a.-b:c",
		"docker.io/a:.b", "docker.io/a:-b", "docker.io/a:b/c", "docker.io/a:" + strings.Repeat("t", 129),
		"docker.io/a:b\n", "docker.io/a:b\x00", "docker.io/:a", "x:/a:b", "[::1/a:b", "[]/a:b", "-x/a:b", "x-/a:b", "_/a:b", "__x/a:b",
		strings.Repeat("h", 256) + "/a:b", "docker.io/" + strings.Repeat("r", 256) + ":b",
	} {
		if n, err := parseName(name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %+v, %v", name, n, err)
		}
	}
}

func FuzzEveryReferenceHasAFileBelowItsRepository(f *testing.F) {
	for _, seed := range []string{"busybox", "localhost:5000/a/b:c", "[::1]:80/x@sha256:" + hex64, "a.b/c__d/e-f:G.h",
		"@sha256:" + hex64, "_served/a:b", "a/..:b", "docker.io/a/:b", "A/b", "xn--n3h.com/a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ref, err := reference.ParseNormalizedNamed(name); err == nil && len(reference.Domain(ref)) <= maxFileName {
			if d, ok := ref.(reference.Canonical); ok {
				if a := d.Digest().Algorithm(); a != "sha256" && a != "sha512" {
					return
				}
				ref, _ = reference.WithDigest(reference.TrimNamed(ref), d.Digest())
			}
			ref = reference.TagNameOnly(ref)
			if _, err := parseName(ref.String()); err != nil {
				t.Errorf("a valid reference is refused: %v", err)
			}
		}
		n, err := parseName(name)
		if err != nil {
			return
		}
		if n.String() != name {
			t.Errorf("%q comes back as %q", name, n)
		}
		path := filepath.Join("/refs", n.dir, n.leaf)
		if path != "/refs/"+strings.TrimPrefix(n.dir+"/"+n.leaf, "/") || !strings.ContainsRune(":@", rune(n.leaf[0])) || isAside(n.leaf) {
			t.Errorf("%q has the file %q", name, path)
		}
		for c := range strings.SplitSeq(strings.TrimPrefix(path, "/refs/"), "/") {
			if len(c) > maxFileName {
				t.Errorf("%q has a component of %d bytes", name, len(c))
			}
		}
	})
}

func FuzzManifestsOfStrangersAreReadOrRefused(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+hex64+`","size":2},"layers":[]}`), "application/vnd.oci.image.manifest.v1+json")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}`), "application/vnd.oci.image.index.v1+json")
	f.Add([]byte(`{"a":{"a":[1,{"b":2}]},"A":null}`), "application/vnd.oci.image.index.v1+json")
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		doc, err := parseManifest(data, mediaType)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, d := range doc.children() {
			if _, _, err := splitDigest(d); err != nil {
				t.Errorf("child %q: %v", d, err)
			}
		}
	})
}
