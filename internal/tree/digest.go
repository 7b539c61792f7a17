package tree

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// DigestOptions select what a digest covers. The fields that CopyOptions have,
// too, mean the same.
type DigestOptions struct {
	FollowSymlink bool
	Wildcard      bool
	DirContents   bool // leave out the metadata of the directory that path names
	Include       []string
	Exclude       []string
	Required      []string

	// Cache, if not nil, saves reading files of a [Dir] that did not change.
	Cache StatCache

	// Temp is the directory for the names of very many hard links; "" is that
	// of [os.TempDir].
	Temp string

	// Each, if not nil, hears of every file in the order of the digest: its
	// name below the source, and the sum of what this file adds. Two lists of
	// them show which file made two digests differ.
	Each func(name string, sum Sum)
}

// digestVersion begins what is hashed. It changes when the rest of it does.
const digestVersion = "shale tree 1\n"

// Digest is the digest of all that a step which reads path of fsys can see:
// names, types, modes, owners, sizes, link targets, hard links, extended
// attributes and content, but no times. The name of path itself is not part of
// it, that of each match of a wildcard is. Nothing at path, or at one of the
// required paths, is [errdefs.ErrNotFound].
//
// Files are read by several goroutines; what is kept meanwhile does not grow with
// the number of files.
func Digest(ctx context.Context, fsys FS, name string, o DigestOptions) (digest.Digest, error) {
	d := &digester{fsys: fsys, o: o, required: required(o.Required)}
	var err error
	if d.patterns, err = newPatterns(o.Include, o.Exclude); err != nil {
		return "", err
	}
	sources, lost := []string{name}, false
	if o.Wildcard {
		sources, err = matches(fsys, name, o.FollowSymlink)
		if lost = gone(err); err != nil && !lost {
			return "", fmt.Errorf("digest %s: %w", absolute(relative(name)), classed(err))
		}
	}
	sum, err := runDigest(ctx, o, func(ctx context.Context, out chan<- *digestEntry) error {
		d.ctx, d.out = ctx.Done(), out
		if lost { // the directory of the pattern: a copy fails, instead of finding nothing
			return d.send(&digestEntry{rel: "\x00"})
		}
		for _, source := range sources {
			if err := d.source(source, o.Wildcard); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	switch {
	case errdefs.IsNotFound(err):
		return "", err
	case err != nil:
		return "", fmt.Errorf("digest %s: %w", absolute(relative(name)), classed(err))
	}
	return sum, d.required.missing()
}

// digester walks what is to be hashed, in the order of the copier.
type digester struct {
	fsys     FS
	o        DigestOptions
	patterns patterns
	required requirements
	ctx      <-chan struct{}
	out      chan<- *digestEntry
	links    linkNames
	parents  []*digestEntry // directories that wait for a match below them
}

// digestEntry is one file on its way into the digest.
type digestEntry struct {
	rel    string
	info   fs.FileInfo
	path   string // in fsys; of a directory that waits
	target string
	link   string // the name of an earlier hard link
	sent   bool

	from    FS // of a regular file that must be read
	at      string
	content Sum
	done    chan struct{} // closed once content is known; nil if it is from the start
	err     error
}

var errStopped = errors.New("stopped")

func (d *digester) send(e *digestEntry) error {
	e.sent = true
	select {
	case d.out <- e:
		return nil
	case <-d.ctx:
		return errStopped
	}
}

func (d *digester) source(source string, wildcard bool) error {
	from, err := resolve(d.fsys.Lstat, d.fsys.ReadLink, ".", source, d.o.FollowSymlink)
	var info fs.FileInfo
	if err == nil {
		info, err = d.fsys.Lstat(from)
	}
	if gone(err) {
		return fmt.Errorf("%q: %w", absolute(relative(source)), errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	d.links = linkNames{Spill: sys.Spill{Dir: d.o.Temp}}
	defer d.links.Close()
	rel := ""
	if wildcard {
		rel = "/" + path.Base(source)
	}
	e := &digestEntry{rel: rel, path: from, info: info}
	if d.o.DirContents && info.IsDir() {
		e.info = nil
	}
	return d.walk(e, info, "", matched{in: true})
}

// walk sends e, which is described by info and called rel below the source, and
// what lies below it. up is what the patterns say of its directory.
func (d *digester) walk(e *digestEntry, info fs.FileInfo, rel string, up matched) error {
	m := up
	if rel != "" {
		var err error
		if m, err = d.patterns.match(rel, up); err != nil {
			return err
		}
	}
	if m.selected() {
		if err := d.sendWithParents(e, info); err != nil {
			return err
		}
	}
	if !info.IsDir() || !m.selected() && !d.patterns.below(rel, m) {
		return nil
	}
	d.parents = append(d.parents, e)
	defer func() { d.parents = d.parents[:len(d.parents)-1] }()
	return eachEntry(d.fsys, e.path, func(kid fs.DirEntry) error {
		info, err := kid.Info()
		if err != nil {
			return err
		}
		next := &digestEntry{rel: e.rel + "/" + kid.Name(), path: join(e.path, kid.Name()), info: info}
		return d.walk(next, info, join(cmp.Or(rel, "."), kid.Name()), m)
	})
}

func (d *digester) sendWithParents(e *digestEntry, info fs.FileInfo) error {
	for _, p := range d.parents {
		if !p.sent {
			d.required.seen(p.path)
			if err := d.send(p); err != nil {
				return err
			}
		}
	}
	d.required.seen(e.path)
	switch info.Mode().Type() {
	case 0:
		stat := quickStat(info)
		if stat.Nlink > 1 {
			first, again, err := d.links.first(stat.Ino, e.rel)
			if err != nil {
				return err
			}
			if again {
				e.link = first
				return d.send(e)
			}
		}
		e.from, e.at = origin(d.fsys, e.path, info)
	case fs.ModeSymlink:
		var err error
		if e.target, err = d.fsys.ReadLink(e.path); err != nil {
			return err
		}
	}
	return d.send(e)
}

// encoder writes fields so that no two different entries give the same bytes.
type encoder struct {
	hash.Hash
	buf []byte
}

func (w *encoder) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }

func (w *encoder) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

// entry adds e. Extended attributes of regular files are part of the content.
func (w *encoder) entry(e *digestEntry) {
	w.buf = w.buf[:0]
	w.text(strings.TrimPrefix(e.rel, "/"))
	switch {
	case e.info == nil: // a directory of which only what it holds counts
		w.text("contents")
	case e.link != "":
		w.text("link")
		w.text(e.link)
	default:
		w.text("file")
		mode, stat := e.info.Mode(), quickStat(e.info)
		w.number(uint64(mode))
		w.number(uint64(stat.UID))
		w.number(uint64(stat.GID))
		switch {
		case mode.IsRegular():
			w.number(uint64(e.info.Size()))
			w.buf = append(w.buf, e.content[:]...)
		case mode&fs.ModeDevice != 0:
			w.number(stat.Rdev)
		case mode.Type() == fs.ModeSymlink:
			w.text(e.target)
		}
		if !mode.IsRegular() {
			w.xattrs(stat.Xattrs)
		}
	}
	w.Write(w.buf)
}

func (w *encoder) xattrs(xattrs map[string][]byte) {
	w.number(uint64(len(xattrs)))
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		w.text(name)
		w.text(string(xattrs[name]))
	}
}
