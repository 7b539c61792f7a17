package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/sys"
)

// A list of refs would open a file for each of them. cache/refs is a copy of
// what they say, by directory, with the stamp that each directory had when it
// was read. A directory whose stamp is still the same needs one lstat.
//
// The copy is derived: it has a checksum, is never synced, and is written anew
// when reading around it has become worth the while.
const (
	refCacheFile  = cacheDir + "/refs"
	refCacheMagic = "shale refs 1\n"
	refCacheSlack = 16 // directories and refs that may be read before it is written
)

// refDir is one directory of refs/.
type refDir struct {
	stamp sys.Stamp // zero: it changed too lately to be trusted
	dirs  []string
	refs  []Ref
}

// refWalk goes through refs/, through the cache where that is true.
type refWalk struct {
	store *Store
	now   time.Time
	known map[string]*refDir
	seen  map[string]*refDir
	read  int // settled directories, and refs in them, that the cache did not have
	refs  []Ref
}

// Refs returns every name but the hidden ones, sorted. Names that come and go
// at the same time may or may not be among them. A ref that the disk has
// spoiled is left out, so that the others stay of use; [Store.Fsck] finds it.
func (s *Store) Refs(ctx context.Context) ([]Ref, error) { return s.listRefs(ctx, time.Now()) }

func (s *Store) listRefs(ctx context.Context, now time.Time) ([]Ref, error) {
	w := &refWalk{store: s, now: now, known: s.readRefCache(), seen: map[string]*refDir{}}
	if err := w.walk(ctx, ""); err != nil {
		return nil, fmt.Errorf("list refs: %w", err)
	}
	if w.read > refCacheSlack {
		s.writeRefCache(w.seen)
	}
	slices.SortFunc(w.refs, func(a, b Ref) int { return cmp.Compare(a.Name, b.Name) })
	return w.refs, nil
}

func (w *refWalk) walk(ctx context.Context, dir string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	path := w.store.root + "/" + refsDir + "/" + dir
	stamp, err := sys.StampOf(path) // before it is read
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d := w.known[dir]
	if d == nil || d.stamp != stamp {
		if d, err = w.store.readRefDir(dir); err != nil {
			return err
		}
		if stamp.Settled(w.now) {
			d.stamp = stamp
			w.read += 1 + len(d.refs)
		}
	}
	w.seen[dir] = d
	w.refs = append(w.refs, d.refs...)
	for _, sub := range d.dirs {
		if dir != "" {
			sub = dir + "/" + sub
		}
		if err := w.walk(ctx, sub); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) readRefDir(dir string) (*refDir, error) {
	entries, err := os.ReadDir(s.path(refsDir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return &refDir{}, nil
	}
	if err != nil {
		return nil, err
	}
	d := &refDir{}
	for _, e := range entries {
		name := e.Name()
		switch leaf := name[0] == ':' || name[0] == '@'; {
		case isAside(name), dir == "" && name[0] == '_':
		case !leaf && e.IsDir():
			d.dirs = append(d.dirs, name)
		case leaf && e.Type().IsRegular():
			n, err := parseName(dir + name)
			if err != nil {
				continue // fsck speaks of it
			}
			ref, err := s.readRef(n)
			if errdefs.IsNotFound(err) || errdefs.IsDataLoss(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			d.refs = append(d.refs, ref)
		}
	}
	return d, nil
}

// readRefCache returns what is there and whole, or nothing.
func (s *Store) readRefCache() map[string]*refDir {
	data, err := os.ReadFile(s.path(refCacheFile))
	if err != nil {
		return nil
	}
	body, ok := bytes.CutPrefix(data, []byte(refCacheMagic))
	if !ok || len(body) < sha256.Size {
		return nil
	}
	sum, body := body[:sha256.Size], body[sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil
	}
	r := refReader{string(body), true}
	dirs := make(map[string]*refDir)
	for r.ok && r.rest != "" {
		dir := r.text()
		d := &refDir{stamp: sys.Stamp{Dev: r.number(), Ino: r.number(), Changed: int64(r.number()), Edited: int64(r.number())}}
		for n := r.number(); n > 0 && r.ok; n-- {
			d.dirs = append(d.dirs, r.text())
		}
		for n := r.number(); n > 0 && r.ok; n-- {
			d.refs = append(d.refs, r.ref(dir))
		}
		dirs[dir] = d
	}
	if !r.ok {
		return nil
	}
	return dirs
}

// writeRefCache replaces the cache. If it can't, the next list is slower.
func (s *Store) writeRefCache(dirs map[string]*refDir) {
	var b []byte
	for dir, d := range dirs {
		if d.stamp == (sys.Stamp{}) {
			continue
		}
		b = appendText(b, dir)
		for _, n := range []uint64{d.stamp.Dev, d.stamp.Ino, uint64(d.stamp.Changed), uint64(d.stamp.Edited), uint64(len(d.dirs))} {
			b = binary.AppendUvarint(b, n)
		}
		for _, sub := range d.dirs {
			b = appendText(b, sub)
		}
		b = binary.AppendUvarint(b, uint64(len(d.refs)))
		for _, ref := range d.refs {
			b = appendRef(b, dir, ref)
		}
	}
	own, err := s.ownLease()
	if err != nil {
		return
	}
	aside, err := own.tempName()
	if err != nil {
		return
	}
	sum := sha256.Sum256(b)
	data := slices.Concat([]byte(refCacheMagic), sum[:], b)
	if err := os.WriteFile(aside, data, 0o600); err != nil || os.Rename(aside, filepath.Join(s.root, refCacheFile)) != nil {
		os.Remove(aside)
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendRef writes a ref without its directory. Descriptors that have more
// than the three fields that all have are written as JSON.
func appendRef(b []byte, dir string, ref Ref) []byte {
	b = appendText(b, strings.TrimPrefix(ref.Name, dir))
	b = binary.AppendUvarint(b, uint64(ref.Updated.UnixNano()))
	d := ref.Descriptor
	plain := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if reflect.DeepEqual(d, plain) {
		b = appendText(b, d.MediaType)
		b = appendText(b, string(d.Digest))
		return binary.AppendUvarint(b, uint64(d.Size))
	}
	data, _ := json.Marshal(d)
	b = appendText(b, "")
	return appendText(b, string(data))
}

// refReader takes apart what writeRefCache wrote. ok turns false at the first
// thing that makes no sense.
type refReader struct {
	rest string
	ok   bool
}

func (r *refReader) number() uint64 {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		if r.rest == "" {
			break
		}
		c := r.rest[0]
		r.rest = r.rest[1:]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.ok = false
	return 0
}

func (r *refReader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.ok, r.rest = false, ""
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *refReader) ref(dir string) Ref {
	ref := Ref{Name: dir + r.text(), Updated: time.Unix(0, int64(r.number()))}
	if mediaType := r.text(); mediaType != "" {
		ref.Descriptor = ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(r.text()), Size: int64(r.number())}
		return ref
	}
	if json.Unmarshal([]byte(r.text()), &ref.Descriptor) != nil {
		r.ok = false
	}
	return ref
}
