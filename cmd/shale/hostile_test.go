package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// hostileRegistry serves an image under each name that can go wrong in one
// way, and a good one to compare with:
//
//	good              nothing is wrong
//	status/CODE       every answer has that status
//	digest, config    a byte of the layer or of the config is another
//	swapped           the manifest is not the one that was asked for by digest
//	short             the layer ends early, and so says its length
//	cut               the connection breaks in the middle of the layer
//	stalled           the layer stops coming in the middle; a push gets no answer
//	gzip              the layer has the right digest and ends in mid-stream
//	tar               the tar in the layer ends in mid-member
//	diff-id           the config promises another layer
//	layers            the config has one layer less than the manifest
//	html, type        the manifest is a page; its media type is unknown
//	layer-type        the media type of the layer is unknown
//	artifact          the config is not that of an image
//	json              the manifest is half a document
//	platform          the index has s390x alone
//	names/KIND        see hostileMembers
func hostileRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: hostile-registry")
	}
	release := make(chan struct{})
	server := httptest.NewServer(hostile{release})
	ts.Defer(func() { close(release); server.CloseClientConnections(); server.Close() })
	ts.Setenv("HOSTILE", strings.TrimPrefix(server.URL, "http://"))
}

type hostile struct{ release <-chan struct{} }

func (h hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if code, found := strings.CutPrefix(path, "status/"); found {
		code, _, _ = strings.Cut(code, "/")
		n, _ := strconv.Atoi(code)
		w.WriteHeader(n)
		return
	}
	if repo, _, found := strings.Cut(path, "/manifests/"); found {
		h.manifest(w, r, repo)
		return
	}
	repo, want, found := strings.Cut(path, "/blobs/")
	if repo == "stalled" && r.Method == http.MethodPost {
		h.stall(r)
	}
	if !found || r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	i := hostileImage(repo)
	switch want {
	case i.manifest.Config.Digest.String():
		i.served(w, r, i.config)
	case i.manifest.Layers[0].Digest.String():
		h.layer(w, r, repo, i)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (h hostile) manifest(w http.ResponseWriter, r *http.Request, repo string) {
	i := hostileImage(repo)
	raw, _ := json.Marshal(i.manifest)
	mediaType := i.manifest.MediaType
	switch repo {
	case "html":
		raw, mediaType = []byte("<html>Please log in to the hotel's network</html>"), "text/html"
	case "json":
		raw = raw[:len(raw)/2]
	case "platform":
		s390x := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
			Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}
		mediaType = ocispec.MediaTypeImageIndex
		raw, _ = json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: []ocispec.Descriptor{s390x}})
	}
	w.Header().Set("Content-Type", mediaType)
	if repo != "swapped" {
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
	}
	i.served(w, r, raw)
}

func (h hostile) layer(w http.ResponseWriter, r *http.Request, repo string, i image) {
	half := i.layer[:len(i.layer)/2]
	switch repo {
	case "short":
		i.served(w, r, half)
	case "cut", "stalled":
		w.Header().Set("Content-Length", strconv.Itoa(len(i.layer)))
		if r.Method == http.MethodHead {
			return
		}
		_, _ = w.Write(half)
		_ = http.NewResponseController(w).Flush()
		if repo == "stalled" {
			h.stall(r)
		}
		panic(http.ErrAbortHandler)
	default:
		i.served(w, r, i.layer)
	}
}

// stall waits until the client leaves or the script ends.
func (h hostile) stall(r *http.Request) {
	select {
	case <-h.release:
	case <-r.Context().Done():
	}
}

type image struct {
	manifest      ocispec.Manifest
	config, layer []byte
}

func (image) served(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

// hostileMembers are members of a layer that no layer may have.
var hostileMembers = map[string]tar.Header{
	"parent":         {Typeflag: tar.TypeReg, Name: "../../escaped"},
	"inner-parent":   {Typeflag: tar.TypeReg, Name: "etc/../../escaped"},
	"hardlink":       {Typeflag: tar.TypeLink, Name: "stolen", Linkname: "../../../../etc/passwd"},
	"hardlink-none":  {Typeflag: tar.TypeLink, Name: "stolen", Linkname: "etc/nothing"},
	"opaque-parent":  {Typeflag: tar.TypeReg, Name: "../.wh..wh..opq"},
	"whiteout-empty": {Typeflag: tar.TypeReg, Name: "etc/.wh."},
	"whiteout-dot":   {Typeflag: tar.TypeReg, Name: "etc/.wh..."},
}

// hostileImage is what repo serves. It is the same at each call.
func hostileImage(repo string) image {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		_ = w.WriteHeader(&h)
		_, _ = w.Write([]byte(content))
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/motd", Mode: 0o644}, strings.Repeat("hello\n", 1000)+repo)
	if kind, found := strings.CutPrefix(repo, "names/"); found {
		add(hostileMembers[kind], "")
	}
	_ = w.Close()
	members := archive.Bytes()
	if repo == "tar" {
		members = members[:3000]
	}

	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(members)
	_ = z.Close()
	i := image{layer: packed.Bytes()}
	if repo == "gzip" {
		i.layer = i.layer[:len(i.layer)-20]
	}

	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(members)}}}
	switch repo {
	case "diff-id":
		config.RootFS.DiffIDs[0] = digest.FromString("another")
	case "layers":
		config.RootFS.DiffIDs = nil
	}
	i.config, _ = json.Marshal(config)

	i.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(i.config), Size: int64(len(i.config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(i.layer), Size: int64(len(i.layer))}},
	}
	switch repo {
	case "digest":
		i.layer = bytes.Clone(i.layer)
		i.layer[len(i.layer)/2] ^= 1
	case "config":
		i.config = bytes.Replace(i.config, []byte("amd64"), []byte("arm64"), 1)
	case "layer-type":
		i.manifest.Layers[0].MediaType = "application/vnd.example.layer+encrypted"
	case "type":
		i.manifest.MediaType = "application/vnd.example.thing+json"
	case "artifact":
		i.manifest.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	}
	return i
}
