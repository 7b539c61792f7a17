// Package rootfstest is the contract of a rootfs driver as a test suite.
//
// It puts layers into a real store, makes the mounts that the driver says, in
// private mount namespaces, and looks at what is there. It runs as root, or as
// root of a user namespace, where it leaves out what only real root can have.
package rootfstest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
	shaletree "github.com/shaleproject/shale/internal/tree"
)

// Run checks the promises of the driver that open returns for a store.
func Run(t *testing.T, open func(t *testing.T, s *store.Store) rootfs.Driver) {
	tests := []struct {
		name string
		f    func(t *testing.T, b *bench)
	}{
		{"EveryKindOfFileIsShownAsTheLayerHasIt", testFiles},
		{"SparseFilesReadAsWritten", testSparse},
		{"ProgramsRunAndKeepSetuid", testPrograms},
		{"UpperLayersHideAndReplace", testMerge},
		{"ADirectoryThatALayerOnlyImpliesKeepsTheAttributesOfTheLayerBelow", testImplied},
		{"ForeignOverlayAttributesMeanNothing", testForeign},
		{"NoLayerIsAnEmptyTree", testNoLayer},
		{"OneLayerIsEnough", testOneLayer},
		{"ALayerMayOccurTwice", testDuplicate},
		{"SixtyLayers", func(t *testing.T, b *bench) { testMany(t, b, 60) }},
		{"ThreeHundredLayers", func(t *testing.T, b *bench) { testMany(t, b, 300) }},
		{"TheRootIsThatOfTheHighestLayer", testRoot},
		{"WritesGoToUpperOnly", testWrites},
		{"AReadOnlyTreeTakesNoWrites", testReadOnly},
		{"TheUpperBecomesALayer", testRoundTrip},
		{"AChangedRootIsInTheLayerAndNoOther", testRootRoundTrip},
		{"AnUpperIsUsedAgain", testAgain},
		{"AVolatileUpperTakesWrites", testVolatile},
		{"NothingStaysMounted", testNothingStays},
		{"AMissingLayerIsNotFound", testMissing},
		{"ForgottenLayersAreMadeAgain", testForget},
		{"ManyMayStackAtOnce", testConcurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := store.Open(filepath.Join(t.TempDir(), "store"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			lease, err := s.Lease(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { lease.Close() })
			test.f(t, &bench{store: s, lease: lease, driver: open(t, s), dir: t.TempDir()})
		})
	}
}

// bench is what a test works with.
type bench struct {
	store  *store.Store
	lease  *store.Lease
	driver rootfs.Driver
	dir    string
	used   int
}

// layer puts a layer with these members into the store.
func (b *bench) layer(t *testing.T, members ...member) digest.Digest {
	t.Helper()
	return b.ingest(t, archive(t, members...))
}

// ingest puts the layer tar data into the store.
func (b *bench) ingest(t *testing.T, data []byte) digest.Digest {
	t.Helper()
	in, err := b.store.IngestLayer(b.lease)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.Write(data); err != nil {
		t.Fatal(err)
	}
	d, _, err := in.Commit(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// place is where a stack is mounted.
type place struct {
	at, upper, work string
}

func (p place) path(name string) string { return filepath.Join(p.at, "rootfs", name) }

// place returns a new place; a read-only one has no upper.
func (b *bench) place(t *testing.T, writable bool) place {
	t.Helper()
	b.used++
	dir := filepath.Join(b.dir, strconv.Itoa(b.used))
	p := place{at: filepath.Join(dir, "at")}
	if err := os.MkdirAll(p.at, 0o700); err != nil {
		t.Fatal(err)
	}
	if writable {
		p.upper, p.work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	}
	return p
}

// mounted calls f while layers are mounted at p, in the namespace where they are.
func (b *bench) mounted(t *testing.T, layers []digest.Digest, p place, f func()) {
	t.Helper()
	mounts, err := b.driver.Stack(t.Context(), layers, p.at, p.upper, p.work)
	if err != nil {
		t.Fatal(err)
	}
	b.make(t, mounts, f)
}

func (b *bench) make(t *testing.T, mounts []sys.Mount, f func()) {
	t.Helper()
	err := sys.PrivateMounts(func() error {
		if err := sys.MountAll(mounts); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shown returns what layers show, read-only.
func (b *bench) shown(t *testing.T, layers ...digest.Digest) tree {
	t.Helper()
	var got tree
	p := b.place(t, false)
	b.mounted(t, layers, p, func() { got = describe(t, p.path("")) })
	return got
}

// fromUpper makes a layer of what was written at p, over layers.
func (b *bench) fromUpper(t *testing.T, p place, layers ...digest.Digest) digest.Digest {
	t.Helper()
	var below []shaletree.FS
	for _, d := range layers {
		l, err := b.store.Layer(d)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		below = append(below, l)
	}
	var data bytes.Buffer
	w := layer.NewWriter(&data)
	if err := layer.FromUpper(context.Background(), w, p.upper, layer.UpperOptions{Below: shaletree.Stack(below...)}); errdefs.IsNotImplemented(err) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.ingest(t, data.Bytes())
}

// plain reports whether the test runs as root of a user namespace; alone, whether it has
// one id only.
func plain() bool { return sys.InUserNamespace() }
func alone() bool { return plain() && sys.OneID() }
