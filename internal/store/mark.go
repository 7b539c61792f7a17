package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// marker finds what roots reach. Content never changes, so what it has read of
// documents stays true however often the roots are looked at again.
type marker struct {
	store *Store
	docs  map[digest.Digest][]digest.Digest
	live  map[digest.Digest]bool
}

func newMarker(s *Store) *marker {
	return &marker{store: s, docs: map[digest.Digest][]digest.Digest{}, live: map[digest.Digest]bool{}}
}

// again forgets what is live, and keeps what documents say.
func (m *marker) again() { m.live = map[digest.Digest]bool{} }

// mark makes ds live, and all that they reach.
func (m *marker) mark(ds ...digest.Digest) error {
	reached, err := m.reach(ds...)
	for _, d := range reached {
		m.live[d] = true
	}
	return err
}

// reach returns what ds reach, themselves included, that is not live yet.
func (m *marker) reach(ds ...digest.Digest) ([]digest.Digest, error) {
	var reached []digest.Digest
	seen := map[digest.Digest]bool{}
	for todo := append([]digest.Digest(nil), ds...); len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if m.live[d] || seen[d] {
			continue
		}
		seen[d] = true
		reached = append(reached, d)
		children, err := m.children(d)
		if err != nil {
			return nil, err
		}
		todo = append(todo, children...)
	}
	return reached, nil
}

// children returns what the content of d refers to, if it is a document. A
// document that the disk has spoiled is an [errdefs.ErrDataLoss]: guessing
// what it referred to could cost the layers of an image.
func (m *marker) children(d digest.Digest) ([]digest.Digest, error) {
	if children, ok := m.docs[d]; ok {
		return children, nil
	}
	b, err := m.store.Blob(d)
	if errdefs.IsNotFound(err) {
		return nil, nil // perhaps it comes later
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var children []digest.Digest
	if looksLikeDocument(b) {
		data, err := m.store.Read(d)
		if err != nil {
			return nil, err
		}
		// A layer may look like a document and be none.
		var doc document
		var mistyped *json.UnmarshalTypeError
		if err := json.Unmarshal(data, &doc); err == nil || errors.As(err, &mistyped) {
			children = doc.children()
		}
	}
	m.docs[d] = children
	return children, nil
}

// looksLikeDocument reads the first bytes only: tars and compressed data don't
// begin with a brace.
func looksLikeDocument(b *Blob) bool {
	if b.Size() > DocumentLimit {
		return false
	}
	head := make([]byte, 16)
	n, _ := b.ReadAt(head, 0)
	return bytes.HasPrefix(bytes.TrimLeft(head[:n], " \t\r\n"), []byte("{"))
}

// markRefs marks what names point at. A name that can't be read stops the
// collector: what it kept can't be told from garbage.
func (m *marker) markRefs(ctx context.Context, hidden bool) error {
	return m.store.walkNames(ctx, refsDir, "", func(n refName, err error) error {
		if err != nil || n.hidden() && !hidden {
			return err
		}
		ref, err := m.store.readRef(n)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = m.mark(ref.Descriptor.Digest)
		}
		if err != nil {
			return fmt.Errorf("ref %s: %w", n, err)
		}
		return nil
	})
}

func (m *marker) markContainers() error {
	ids, err := m.store.Containers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		holds, err := m.store.ContainerHolds(id)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil {
			err = m.mark(holds...)
		}
		if err != nil {
			return fmt.Errorf("container %s: %w", id, err)
		}
	}
	return nil
}

// leases returns, by id, what the leases of living processes keep, and the ids
// of those whose process has died.
func (s *Store) leases() (live map[string][]digest.Digest, dead []string, err error) {
	entries, err := os.ReadDir(s.path(leasesDir))
	if err != nil {
		return nil, nil, err
	}
	live = map[string][]digest.Digest{}
	for _, e := range entries {
		f, err := os.Open(s.path(leasesDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		held, err := sys.LockedElsewhere(f)
		switch {
		case err != nil:
		case held:
			live[e.Name()], err = readLease(f)
		default:
			dead = append(dead, e.Name())
		}
		f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return live, dead, nil
}

func readLease(f *os.File) ([]digest.Digest, error) {
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	var ds []digest.Digest
	for line := range bytes.Lines(data) {
		d := digest.Digest(bytes.TrimSpace(line))
		if _, _, err := splitDigest(d); err == nil {
			ds = append(ds, d)
		}
	}
	return ds, nil
}
