package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Writer writes a layer in its canonical form: headers with no field that
// depends on the machine, PAX records only where a field needs them. The order
// of the members is the caller's. docs/format/layer.md has the bytes.
type Writer struct {
	w    io.Writer
	name string // of the current member
	left int64  // bytes of its content that are missing
	pad  int64
	err  error
	rec  [recordSize]byte
	copy []byte
}

// NewWriter returns a Writer that writes to w. Closing it leaves w open.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteHeader begins a member. Extended attributes are given as PAX records
// "SCHILY.xattr.NAME"; user and group names, access and change times are
// dropped, and the modification time is cut to the second. A member other than
// a regular file has no content.
//
// A name that is not within the root, a type that a layer can't hold and a
// value out of range are an [errdefs.ErrInvalidArgument]. They leave the
// Writer as it was.
func (w *Writer) WriteHeader(h *tar.Header) error {
	if err := w.end(); err != nil {
		return err
	}
	f, err := canonical(h)
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	head, err := f.encode()
	if err != nil {
		return fmt.Errorf("write layer: member %q: %w", clip(h.Name), err)
	}
	if _, err := w.w.Write(head); err != nil {
		return w.fail(err)
	}
	w.name, w.left, w.pad = f.name, f.size, -f.size&(recordSize-1)
	return nil
}

// Write adds to the content of the member that WriteHeader began.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("write layer: member %q: %d bytes too many: %w",
			clip(w.name), int64(len(p))-w.left, errdefs.ErrInvalidArgument)
	}
	n, err := w.w.Write(p)
	w.left -= int64(n)
	if err != nil {
		return n, w.fail(err)
	}
	return n, nil
}

// ReadFrom copies r into the content of the current member, to the end of
// either. That r has more is for the caller to find.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if w.copy == nil {
		w.copy = make([]byte, 256<<10)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(r, w.left)}, w.copy)
	return n, err
}

// Whiteout says that path, which a lower layer has, is no more.
func (w *Writer) Whiteout(name string) error {
	clean, err := cleanName(name)
	if err != nil {
		return fmt.Errorf("write whiteout: %w", err)
	}
	dir, base := path.Split(clean)
	if base == "." {
		return fmt.Errorf("write whiteout: %w", refuse(name, "whiteout of the root"))
	}
	return w.marker(dir + whiteoutPrefix + base)
}

// Opaque says that nothing which lower layers have in dir is there any more.
func (w *Writer) Opaque(dir string) error {
	clean, err := cleanName(dir)
	if err != nil {
		return fmt.Errorf("write opaque directory: %w", err)
	}
	return w.marker(path.Join(clean, opaqueName))
}

func (w *Writer) marker(name string) error {
	if err := w.end(); err != nil {
		return err
	}
	head, err := (&file{name: name, kind: tar.TypeReg}).encode()
	if err != nil {
		return fmt.Errorf("write layer: member %q: %w", clip(name), err)
	}
	if _, err := w.w.Write(head); err != nil {
		return w.fail(err)
	}
	w.name = name
	return nil
}

// Close ends the tar. It does not close the writer below.
func (w *Writer) Close() error {
	if err := w.end(); err != nil {
		return err
	}
	if _, err := w.w.Write(make([]byte, 2*recordSize)); err != nil {
		return w.fail(err)
	}
	w.err = fmt.Errorf("write layer: closed: %w", errdefs.ErrFailedPrecondition)
	return nil
}

// end completes the current member.
func (w *Writer) end() error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 {
		return fmt.Errorf("write layer: member %q: %d bytes are missing: %w",
			clip(w.name), w.left, errdefs.ErrFailedPrecondition)
	}
	if w.pad > 0 {
		clear(w.rec[:])
		if _, err := w.w.Write(w.rec[:w.pad]); err != nil {
			return w.fail(err)
		}
		w.pad = 0
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = fmt.Errorf("write layer: %w", err)
	return w.err
}

// file is a member in its canonical form.
type file struct {
	name, link   string
	kind         byte
	mode         int64
	uid, gid     int64
	size, mtime  int64
	major, minor int64
	xattrs       map[string]string
}

// canonical checks h and leaves out what the canonical form lacks.
func canonical(h *tar.Header) (*file, error) {
	name, err := cleanName(h.Name)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, whiteoutPrefix) || strings.Contains(name, "/"+whiteoutPrefix) {
		return nil, refuse(h.Name, "a layer cannot hold a file whose name begins with %s", whiteoutPrefix)
	}
	f := &file{
		name: name, kind: h.Typeflag, mode: h.Mode & 0o7777,
		uid: int64(h.Uid), gid: int64(h.Gid), mtime: h.ModTime.Unix(),
	}
	if h.ModTime.IsZero() {
		f.mtime = 0
	}
	switch h.Typeflag {
	case tar.TypeReg, 0:
		f.kind, f.size = tar.TypeReg, h.Size
	case tar.TypeDir:
		f.name += "/"
	case tar.TypeLink:
		m := &member{name: h.Name, link: h.Linkname}
		if f.link, err = cleanLink(m); err != nil {
			return nil, err
		}
	case tar.TypeSymlink:
		if f.link, f.mode = h.Linkname, 0o777; !validTarget(f.link) {
			return nil, refuse(h.Name, "bad target of a symbolic link")
		}
	case tar.TypeChar, tar.TypeBlock:
		f.major, f.minor = h.Devmajor, h.Devminor
	case tar.TypeFifo:
	default:
		return nil, refuse(h.Name, "unknown type of member %q", h.Typeflag)
	}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, paxXattr); ok && !ofOverlay(attr) && f.kind != tar.TypeLink {
			if f.xattrs == nil {
				f.xattrs = map[string]string{}
			}
			f.xattrs[attr] = value
		}
	}
	return f, nil
}

// encode returns the header records. A field that doesn't fit its place in a
// ustar header is 0 or cut there and stands in an extended header.
func (f *file) encode() ([]byte, error) {
	records := map[string]string{}
	var rec [recordSize]byte
	prefix, name, ok := splitName(f.name)
	if !ok {
		records["path"] = f.name
		name = f.name[:min(len(f.name), 100)]
	}
	if len(f.link) > 100 {
		records["linkpath"] = f.link
	}
	copy(rec[0:100], name)
	copy(rec[157:257], f.link)
	copy(rec[345:500], prefix)
	copy(rec[257:], magicPOSIX+"00")
	rec[156] = f.kind
	for _, n := range []struct {
		key   string
		place []byte
		value int64
	}{
		{"", rec[100:108], f.mode},
		{"uid", rec[108:116], f.uid},
		{"gid", rec[116:124], f.gid},
		{"size", rec[124:136], f.size},
		{"mtime", rec[136:148], f.mtime},
		{"", rec[329:337], f.major},
		{"", rec[337:345], f.minor},
	} {
		fits := n.value >= 0 && n.value < 1<<(3*(len(n.place)-1))
		if !fits && n.key == "" || n.value < 0 && n.key != "mtime" {
			return nil, fmt.Errorf("number %d out of range: %w", n.value, errdefs.ErrInvalidArgument)
		}
		if !fits {
			records[n.key] = strconv.FormatInt(n.value, 10)
			n.value = 0
		}
		octal(n.place, n.value)
	}
	for name, value := range f.xattrs {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, fmt.Errorf("bad extended attribute %q: %w", name, errdefs.ErrInvalidArgument)
		}
		records[paxXattr+name] = value
	}
	checksum(rec[:])
	if len(records) == 0 {
		return rec[:], nil
	}
	head, err := extendedHeader(f.name, records)
	return append(head, rec[:]...), err
}

// extendedHeader returns the records, sorted by key, as a member of their own.
func extendedHeader(name string, records map[string]string) ([]byte, error) {
	var text []byte
	for _, key := range slices.Sorted(maps.Keys(records)) {
		text = appendRecord(text, key, records[key])
	}
	if len(text) > maxHeader {
		return nil, fmt.Errorf("extended header of %d bytes, more than %d: %w", len(text), maxHeader, errdefs.ErrInvalidArgument)
	}
	head := make([]byte, recordSize, 3*recordSize+len(text))
	base := "PaxHeaders.0/" + path.Base(name)
	copy(head[0:100], base[:min(len(base), 100)])
	octal(head[100:108], 0o644)
	octal(head[108:116], 0)
	octal(head[116:124], 0)
	octal(head[124:136], int64(len(text)))
	octal(head[136:148], 0)
	octal(head[329:337], 0)
	octal(head[337:345], 0)
	head[156] = tar.TypeXHeader
	copy(head[257:], magicPOSIX+"00")
	checksum(head)
	head = append(head, text...)
	return append(head, make([]byte, -len(text)&(recordSize-1))...), nil
}

// appendRecord appends "LENGTH KEY=VALUE\n", whose length counts itself.
func appendRecord(b []byte, key, value string) []byte {
	rest := len(key) + len(value) + 3 // space, equals sign, newline
	size := rest + len(strconv.Itoa(rest))
	if n := rest + len(strconv.Itoa(size)); n != size {
		size = n
	}
	return fmt.Appendf(b, "%d %s=%s\n", size, key, value)
}

// splitName divides a name that is too long for one field at the last slash
// that makes both parts fit (POSIX ustar, "prefix").
func splitName(name string) (prefix, rest string, ok bool) {
	if len(name) <= 100 {
		return "", name, true
	}
	if len(name) > 256 {
		return "", "", false
	}
	cut := strings.LastIndexByte(name[:min(156, len(name)-1)], '/')
	if cut <= 0 || len(name)-cut-1 > 100 || cut+1 == len(name) {
		return "", "", false
	}
	return name[:cut], name[cut+1:], true
}

// octal writes a number with leading zeros and a NUL.
func octal(b []byte, n int64) {
	for i := len(b) - 2; i >= 0; i-- {
		b[i] = '0' + byte(n&7)
		n >>= 3
	}
	b[len(b)-1] = 0
}

// checksum fills in the sum of all bytes, with itself taken as spaces.
func checksum(rec []byte) {
	copy(rec[148:156], "        ")
	var sum int64
	for _, c := range rec {
		sum += int64(c)
	}
	octal(rec[148:155], sum)
}
