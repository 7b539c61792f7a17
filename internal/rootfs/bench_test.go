package rootfs_test

import (
	"archive/tar"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// BenchmarkMount measures from the digests of the layers to the tree being
// there, beside what the kernel alone takes for a mount namespace.
func BenchmarkMount(b *testing.B) {
	s, err := store.Open(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	lease, err := s.Lease(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer lease.Close()
	var layers []digest.Digest
	for i := range 60 {
		in, err := s.IngestLayer(lease)
		if err != nil {
			b.Fatal(err)
		}
		w := tar.NewWriter(in)
		for j := range 200 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("layer%d/file%d", i, j), Mode: 0o644}); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		d, _, err := in.Commit(b.Context(), "")
		if err != nil {
			b.Fatal(err)
		}
		layers = append(layers, d)
		in.Close()
	}
	b.Run("namespace", func(b *testing.B) {
		for b.Loop() {
			if err := sys.PrivateMounts(func() error { return nil }); err != nil {
				b.Skip(err)
			}
		}
	})
	for _, name := range []string{"erofs", "overlay"} {
		for _, count := range []int{1, 10, 60} {
			b.Run(fmt.Sprintf("%s/%d", name, count), func(b *testing.B) {
				d, _, err := rootfs.Choose(s, name)
				if err != nil {
					b.Skip(err)
				}
				at, upper := b.TempDir(), filepath.Join(b.TempDir(), "upper")
				work := filepath.Join(filepath.Dir(upper), "work")
				for b.Loop() {
					mounts, err := d.Stack(b.Context(), layers[:count], at, upper, work)
					if err != nil {
						b.Fatal(err)
					}
					if err := sys.PrivateMounts(func() error { return sys.MountAll(mounts) }); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l, err := s.Layer(layers[0])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := l.Lstat("."); err != nil {
				b.Fatal(err)
			}
			l.Close()
		}
	})
}
