package s3_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/registry/s3"
	"github.com/shaleproject/shale/internal/registry/s3/s3test"
)

// start starts a real server and describes its bucket.
func start(t *testing.T) (*s3test.Server, s3.Bucket) {
	t.Helper()
	s, err := s3test.Start(t.TempDir())
	if errors.Is(err, s3test.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b := s3.Defaults()
	b.Name, b.Region, b.Endpoint, b.PathStyle, b.Credentials = "cache", "us-east-1", s.URL, true, s.Keys
	return s, b
}

func open(t *testing.T, b s3.Bucket) *s3.Registry {
	t.Helper()
	r, err := s3.New(b, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBlobsAndManifestsLieWhereBuildKitHasThem(t *testing.T) {
	server, b := start(t)
	b.Prefix, b.Names = "team a/ä+&=/", []string{"main", "feature/x"}
	r, data := open(t, b), []byte("content")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	ctx := t.Context()
	if _, err := r.ResolveBlob(ctx, "", desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("a blob that is missing: error is %v", err)
	}
	if _, err := r.GetTag(ctx, "", ""); !errdefs.IsNotFound(err) {
		t.Errorf("a manifest that is missing: error is %v", err)
	}
	if _, err := r.PushBlob(ctx, "", desc, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PushManifest(ctx, "", "", []byte("{}"), ocispec.MediaTypeImageManifest); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"blobs/" + desc.Digest.String(): "content", "manifests/main": "{}", "manifests/feature/x": "{}",
	} {
		if got, err := os.ReadFile(filepath.Join(server.Dir, b.Prefix, name)); string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if found, err := r.ResolveBlob(ctx, "", desc.Digest); err != nil || found.Size != desc.Size {
		t.Errorf("found %d bytes: %v", found.Size, err)
	}
	blob, err := r.GetBlob(ctx, "", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if got, err := io.ReadAll(blob); err != nil || !bytes.Equal(got, data) || blob.Descriptor().Size != desc.Size {
		t.Errorf("blob is %q of %d bytes: %v", got, blob.Descriptor().Size, err)
	}
}

func TestTheServerRefusesWhatIsNotWhatItsDigestSays(t *testing.T) {
	_, b := start(t)
	r := open(t, b)
	desc := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	if _, err := r.PushBlob(t.Context(), "", desc, bytes.NewReader([]byte("CONTENT"))); err == nil {
		t.Error("it was taken")
	}
	if _, err := r.ResolveBlob(t.Context(), "", desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
}

func TestTheServerKnowsWhoAsks(t *testing.T) {
	_, b := start(t)
	for name, keys := range map[string]s3.Credentials{
		"another secret": {KeyID: b.Credentials.KeyID, Secret: "another"},
		"another key":    {KeyID: "another", Secret: b.Credentials.Secret},
	} {
		b := b
		b.Credentials = keys
		if _, err := open(t, b).PushManifest(t.Context(), "", "", []byte("{}"), ""); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// The server takes an object that is copied onto itself, whatever is in its name.
func TestABlobIsTouched(t *testing.T) {
	_, b := start(t)
	data := []byte("content")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.Prefix, b.Touch = "a b/ä+/", -time.Hour
	r := open(t, b)
	if _, err := r.PushBlob(t.Context(), "", desc, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ResolveBlob(t.Context(), "", desc.Digest); err != nil {
		t.Error(err)
	}
}
