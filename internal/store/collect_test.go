package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shaleproject/shale/internal/sys"
)

func collect(t testing.TB, s *Store, o CollectOptions) Report {
	t.Helper()
	report, err := s.Collect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantWhole(t testing.TB, s *Store) {
	t.Helper()
	problems, err := s.Fsck(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

func has(s *Store, d digest.Digest) bool {
	_, err := s.Stat(d)
	return err == nil
}

func TestWhatSomethingRefersToIsKept(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	named, held, cached := mustImage(t, s, l, "named", "shared"), mustImage(t, s, l, "held", "shared"), mustImage(t, s, l, "cached")
	hidden, garbage := mustImage(t, s, l, "hidden"), mustImage(t, s, l, "garbage", "shared")
	if err := errors.Join(
		s.SetRef("docker.io/a/b:c", named),
		s.SetRef("_served/a:b", hidden),
		s.Cache("step").Put("key", Record{Holds: []digest.Digest{cached.Digest}}),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewContainer("c1", []digest.Digest{held.Digest}); err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, CollectOptions{}); r != (Report{}) {
		t.Errorf("collected what a lease keeps: %+v", r)
	}
	l.Close()
	if r := collect(t, s, CollectOptions{DryRun: true}); r.Blobs != 3 || !has(s, garbage.Digest) {
		t.Errorf("dry run: %+v", r)
	}
	r := collect(t, s, CollectOptions{})
	if r.Blobs != 3 || r.Records != 0 || has(s, garbage.Digest) || r.Bytes == 0 {
		t.Errorf("report: %+v", r)
	}
	for _, layer := range []string{"named", "shared", "held", "cached", "hidden"} {
		if !has(s, digest.FromString(layer)) {
			t.Errorf("lost %s", layer)
		}
	}
	wantWhole(t, s)

	if err := errors.Join(s.DeleteRef("docker.io/a/b:c"), s.DeleteRef("_served/a:b"), s.RemoveContainer("c1")); err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, CollectOptions{CacheBudget: -1}); r.Records != 1 {
		t.Errorf("report: %+v", r)
	}
	if left := listing(t, s.path(blobsDir, "sha256")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestTheLeastRecentlyUsedCacheGoesFirst(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	c := s.Cache("step")
	now := time.Now()
	for i, key := range []string{"old", "older", "oldest"} {
		layer := make([]byte, 100<<10)
		layer[0] = byte(i)
		d, err := ingest(s, l, layer)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Put(key, Record{Data: []byte(key), Holds: []digest.Digest{d}}); err != nil {
			t.Fatal(err)
		}
		used := now.Add(-time.Duration(i+1) * time.Hour)
		if err := sys.Touch(c.path(key), used, used); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if _, err := c.Get("oldest"); err != nil { // it is the youngest now
		t.Fatal(err)
	}
	if _, err := c.All(t.Context()); err != nil { // no use
		t.Fatal(err)
	}
	if r := collect(t, s, CollectOptions{CacheBudget: 250 << 10}); r.Records != 1 || r.Blobs != 1 {
		t.Errorf("report: %+v", r)
	}
	all, err := c.All(t.Context())
	if err != nil || len(all) != 2 || all["old"].Data == nil || all["oldest"].Data == nil {
		t.Errorf("left: %v, %v", all, err)
	}
	if r := collect(t, s, CollectOptions{CacheUnused: 30 * time.Minute}); r.Records != 1 {
		t.Errorf("report: %+v", r)
	}
	if _, err := c.Get("old"); !errdefs.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
	wantWhole(t, s)
}

func TestARecordOfAbsentContentIsRefused(t *testing.T) {
	s := open(t)
	err := s.Cache("step").Put("key", Record{Holds: []digest.Digest{digest.FromString("absent")}})
	if !errdefs.IsNotFound(err) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.NewContainer("c", []digest.Digest{digest.FromString("absent")}); !errdefs.IsNotFound(err) {
		t.Errorf("new container: %v", err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestASpoiledRecordIsAMiss(t *testing.T) {
	s := open(t)
	c := s.Cache("step")
	if err := c.Put("key", Record{Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get("key"); err != nil || string(r.Data) != "data" {
		t.Fatal(r, err)
	}
	spoil(t, c.path("key"))
	if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) != 1 {
		t.Errorf("fsck: %v, %v", problems, err)
	}
	if _, err := c.Get("key"); !errdefs.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
	wantWhole(t, s)
}

func TestAContainerIsWholeOrNotThere(t *testing.T) {
	s := open(t)
	dir, err := s.NewContainer("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewContainer("c1", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second: %v", err)
	}
	if _, err := s.NewContainer("../c2", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad id: %v", err)
	}
	// A directory without permissions, such as overlayfs makes.
	if err := os.MkdirAll(filepath.Join(dir, "work/work/x"), 0o700); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(dir, "work/work"), 0)
	// Half removed.
	if err := os.Remove(filepath.Join(dir, holdsFile)); err != nil {
		t.Fatal(err)
	}
	if ids, err := s.Containers(); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	if err := s.RemoveContainer("c1"); !errdefs.IsNotFound(err) {
		t.Errorf("remove: %v", err)
	}
	if r := collect(t, s, CollectOptions{}); r.Stale != 1 {
		t.Errorf("report: %+v", r)
	}
	if left := append(listing(t, s.path(containersDir)), listing(t, s.path(tmpDir))...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestDerivedFilesGoWithTheirContent(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	kept, gone := digest.FromString("kept"), digest.FromString("gone")
	if err := l.Keep(kept); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{kept, gone} {
		if err := errors.Join(os.WriteFile(s.derived(indexDir, d), []byte("x"), 0o600), os.MkdirAll(s.TreeDir(d)+"/a/b", 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	if r := collect(t, s, CollectOptions{}); r.Derived != 2 {
		t.Errorf("report: %+v", r)
	}
	for dir, path := range map[string]string{indexDir: s.derived(indexDir, gone), treesDir: s.TreeDir(gone)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of what is gone: %v", dir, err)
		}
	}
	if _, err := os.Lstat(s.TreeDir(kept)); err != nil {
		t.Error(err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestALockIsCollectedOnlyWhenNobodyHasHadItForLong(t *testing.T) {
	s := open(t)
	lock, err := sys.Lock(s.path(tmpDir, "some.lock"), sys.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	later := CollectOptions{Now: time.Now().Add(48 * time.Hour)}
	if r := collect(t, s, later); r.Stale != 0 {
		t.Errorf("while it is held: %+v", r)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, CollectOptions{}); r.Stale != 0 {
		t.Errorf("while it is young: %+v", r)
	}
	if r := collect(t, s, later); r.Stale != 1 {
		t.Errorf("later: %+v", r)
	}
}

func TestNothingIsCollectedWhenARefCannotBeRead(t *testing.T) {
	for _, damage := range []string{"ref", "manifest", "holds"} {
		t.Run(damage, func(t *testing.T) {
			s := open(t)
			l := lease(t, s)
			desc := mustImage(t, s, l, "layer")
			mustImage(t, s, l, "garbage")
			if err := s.SetRef("docker.io/a/b:c", desc); err != nil {
				t.Fatal(err)
			}
			dir, err := s.NewContainer("c", []digest.Digest{desc.Digest})
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			spoil(t, map[string]string{"ref": s.path(refsDir, "docker.io/a/b/:c"), "manifest": s.Path(desc.Digest), "holds": filepath.Join(dir, holdsFile)}[damage])
			if damage != "manifest" { // make sure that it isn't JSON any more
				os.WriteFile(map[string]string{"ref": s.path(refsDir, "docker.io/a/b/:c"), "holds": filepath.Join(dir, holdsFile)}[damage], []byte("{"), 0o600)
			}
			if _, err := s.Collect(t.Context(), CollectOptions{}); !errdefs.IsDataLoss(err) {
				t.Errorf("got %v", err)
			}
			if !has(s, digest.FromString("garbage")) || !has(s, digest.FromString("layer")) {
				t.Error("something was collected")
			}
			if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) == 0 {
				t.Errorf("fsck: %v, %v", problems, err)
			}
		})
	}
}

func TestDeepFsckFindsEverySpoiledBlob(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	desc := mustImage(t, s, l, "one", "two")
	if err := s.SetRef("docker.io/a/b:c", desc); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s)
	var m ocispec.Manifest
	data, _ := s.Read(desc.Digest)
	json.Unmarshal(data, &m)
	for _, d := range []digest.Digest{desc.Digest, m.Config.Digest, m.Layers[0].Digest, m.Layers[1].Digest} {
		spoil(t, s.Path(d))
		problems, err := s.Fsck(t.Context(), true)
		if err != nil || len(problems) == 0 {
			t.Errorf("%s: %v, %v", d, problems, err)
		}
		for _, p := range problems {
			if !errdefs.IsDataLoss(p.Err) {
				t.Errorf("%s: %v", d, p)
			}
		}
		spoil(t, s.Path(d)) // the same bit again
	}
	wantWhole(t, s)
	os.Truncate(s.Path(m.Layers[0].Digest), 1)
	if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) != 1 {
		t.Errorf("a wrong size: %v, %v", problems, err)
	}
}

func TestUsageFindsAPlaceForEveryByte(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	named, held, cached, garbage := mustImage(t, s, l, "named"), mustImage(t, s, l, "held"), mustImage(t, s, l, "cached"), mustImage(t, s, l, "garbage")
	s.SetRef("docker.io/a/b:c", named)
	s.SetRef("docker.io/a/b:d", named)
	s.SetRef("docker.io/a/held:d", held)
	s.SetRef("_served/a:b", named)
	s.Cache("step").Put("key", Record{Holds: []digest.Digest{cached.Digest}})
	if _, err := s.NewContainer("c", []digest.Digest{held.Digest}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const blobs = 3 * 4096 // manifest, config, layer
	if u.Images.Total != 2 || u.Images.Active != 1 || u.Images.Size != 2*blobs || u.Images.Reclaimable != blobs {
		t.Errorf("images: %+v", u.Images)
	}
	if u.Containers.Total != 1 || u.Cache.Total != 1 || u.Cache.Size != blobs+4096 || u.Registry.Total != 1 || u.Registry.Size != 0 || u.Garbage != blobs {
		t.Errorf("%+v", u)
	}
	_ = garbage
}

func BenchmarkCollect500Images(b *testing.B) {
	s := open(b)
	l := lease(b, s)
	for i := range 500 {
		desc := mustImage(b, s, l, fmt.Sprint("layer ", i), fmt.Sprint("other ", i), "shared")
		if err := s.SetRef(fmt.Sprintf("docker.io/team%d/app%d:latest", i%20, i), desc); err != nil {
			b.Fatal(err)
		}
		if err := s.Cache("step").Put(fmt.Sprint(i), Record{Holds: []digest.Digest{desc.Digest}}); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	for b.Loop() {
		if r := collect(b, s, CollectOptions{}); r.Blobs != 0 || r.Records != 0 {
			b.Fatal(r)
		}
	}
}

func BenchmarkFsckQuick500Images(b *testing.B) {
	s := open(b)
	l := lease(b, s)
	for i := range 500 {
		desc := mustImage(b, s, l, fmt.Sprint("layer ", i), fmt.Sprint("other ", i), "shared")
		if err := s.SetRef(fmt.Sprintf("docker.io/team%d/app%d:latest", i%20, i), desc); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	for b.Loop() {
		if problems, err := s.Fsck(b.Context(), false); err != nil || len(problems) != 0 {
			b.Fatal(problems, err)
		}
	}
}
