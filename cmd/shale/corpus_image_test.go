package main_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// flatImage is an image as one tree of files, made from the tars of its layers
// by nothing but what is written here, so that shale's own reading of them is
// not asked.
type flatImage struct {
	files  map[string]*flatFile // by absolute path
	config map[string]json.RawMessage
}

// flatFile is one inode: hard links share it.
type flatFile struct {
	tar.Header
	content string // of a regular file: quoted if it is short text, else a hash
}

// configFields are those that builders set.
var configFields = []string{
	"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
	"Healthcheck", "Shell", "OnBuild", "ArgsEscaped",
}

func newFlatImage(config []byte) (*flatImage, error) {
	var doc struct{ Config map[string]json.RawMessage }
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, err
	}
	return &flatImage{map[string]*flatFile{}, doc.Config}, nil
}

// readImageDir reads what buildah writes to "dir:".
func readImageDir(dir string) (*flatImage, error) {
	blob := func(digest string) string { return filepath.Join(dir, strings.TrimPrefix(digest, "sha256:")) }
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, err
	}
	if data, err = os.ReadFile(blob(manifest.Config.Digest)); err != nil {
		return nil, err
	}
	img, err := newFlatImage(data)
	for _, l := range manifest.Layers {
		if err != nil {
			return nil, err
		}
		var f *os.File
		if f, err = os.Open(blob(l.Digest)); err == nil {
			err = errors.Join(img.apply(f), f.Close())
		}
	}
	return img, err
}

// apply puts a layer on top (image-spec layer.md).
func (img *flatImage) apply(layer io.Reader) error {
	fresh := map[string]*flatFile{}
	r := tar.NewReader(layer)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		dir, base := path.Split(name)
		switch hidden, whiteout := strings.CutPrefix(base, ".wh."); {
		case base == ".wh..wh..opq":
			img.remove(path.Clean(dir), false)
		case whiteout:
			img.remove(path.Join(dir, hidden), true)
		case h.Typeflag == tar.TypeLink:
			target := path.Clean("/" + h.Linkname)
			if fresh[name] = fresh[target]; fresh[name] == nil {
				fresh[name] = img.files[target]
			}
			if fresh[name] == nil {
				return fmt.Errorf("hard link %s to %s, which is not there", name, target)
			}
		default:
			f := &flatFile{Header: *h}
			if h.Typeflag == tar.TypeReg {
				if f.content, err = contentOf(r, h.Size); err != nil {
					return err
				}
			}
			fresh[name] = f
		}
	}
	for name, f := range fresh {
		if f.Typeflag != tar.TypeDir {
			img.remove(name, true)
		}
	}
	maps.Copy(img.files, fresh)
	return nil
}

// remove removes what is below name, and name itself.
func (img *flatImage) remove(name string, itself bool) {
	for other := range img.files {
		if itself && other == name || strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
			delete(img.files, other)
		}
	}
}

func contentOf(r io.Reader, size int64) (string, error) {
	if size > 200 {
		hash := sha256.New()
		if _, err := io.Copy(hash, r); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d bytes %x", size, hash.Sum(nil)[:6]), nil
	}
	data, err := io.ReadAll(r)
	if err == nil && !utf8.Valid(data) {
		return fmt.Sprintf("%d bytes %x", size, data), nil
	}
	return strconv.Quote(string(data)), err
}

// list is the image as cases state it: what is not the same in base.
func (img *flatImage) list(base *flatImage, began time.Time) []string {
	before := map[string]string{}
	if img.files["/bin/busybox"] != nil { // else it is from scratch
		before = base.lines(began, true)
	}
	now := img.lines(began, true)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		old, known := before[name]
		// A directory of the base that only got a new time is not of
		// interest: see "directories" in the package tree.
		dir := img.files[name].Typeflag == tar.TypeDir
		if !known || old != now[name] && !(dir && cutTime(old) == cutTime(now[name])) {
			out = append(out, now[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, there := now[name]; !there {
			out = append(out, "- "+name)
		}
	}
	return append(out, img.configLines()...)
}

// comparable is the image as it is compared with buildah's: without the times
// of directories, and without ArgsEscaped, which means something to Windows
// only.
func (img *flatImage) comparable(began time.Time) []string {
	lines := img.lines(began, false)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		out = append(out, lines[name])
	}
	return append(out, slices.DeleteFunc(img.configLines(), func(l string) bool {
		return strings.HasPrefix(l, "ArgsEscaped ")
	})...)
}

// timeMark begins the time in a line.
const timeMark = "  @"

func cutTime(line string) string {
	line, _, _ = strings.Cut(line, timeMark)
	return line
}

// lines has a line for each file, by path.
func (img *flatImage) lines(began time.Time, dirTimes bool) map[string]string {
	names := slices.Sorted(maps.Keys(img.files))
	first := map[*flatFile]string{}
	out := map[string]string{}
	for _, name := range names {
		f := img.files[name]
		if name == "/" {
			continue // has no name in a tar of its own; builders differ
		}
		line := f.line(name)
		if other, linked := first[f]; linked {
			line += "  = " + other
		} else {
			first[f] = name
		}
		if f.Typeflag != tar.TypeDir || dirTimes {
			line += timeOf(f.ModTime, began)
		}
		out[name] = line
	}
	return out
}

// timeOf says when a file was modified, unless that is the time of the
// context's files.
func timeOf(t, began time.Time) string {
	switch {
	case t.Truncate(time.Second).Equal(corpusTime):
		return ""
	case !t.Before(began.Truncate(time.Second)):
		return timeMark + "now"
	}
	return timeMark + t.UTC().Truncate(time.Second).Format(time.RFC3339)
}

func (f *flatFile) line(name string) string {
	kind := map[byte]string{
		tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "link", tar.TypeFifo: "fifo",
		tar.TypeChar: "char", tar.TypeBlock: "block",
	}[f.Typeflag]
	var b strings.Builder
	fmt.Fprintf(&b, "%-4s %04o %d:%d %s", kind, f.Mode&0o7777, f.Uid, f.Gid, printable(name))
	switch f.Typeflag {
	case tar.TypeReg:
		b.WriteString(" " + f.content)
	case tar.TypeSymlink:
		b.WriteString(" -> " + printable(f.Linkname))
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d,%d", f.Devmajor, f.Devminor)
	}
	for _, key := range slices.Sorted(maps.Keys(f.PAXRecords)) {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			fmt.Fprintf(&b, " %s=%q", attr, f.PAXRecords[key])
		}
	}
	return b.String()
}

// printable is a name as a line can hold it.
func printable(name string) string {
	if len(name) > 100 {
		return fmt.Sprintf("%q… (%d bytes)", name[:40], len(name))
	}
	if q := strconv.Quote(name); q != `"`+name+`"` || strings.Contains(name, " ") {
		return q
	}
	return name
}

// configLines has a line for each field of the configuration that says
// something.
func (img *flatImage) configLines() []string {
	var out []string
	for _, field := range configFields {
		var value any
		if raw := img.config[field]; raw == nil || json.Unmarshal(raw, &value) != nil {
			continue
		}
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		_ = e.Encode(value) // it was JSON
		switch line := strings.TrimSpace(text.String()); {
		case line == "null" || line == `""` || line == "[]" || line == "{}" || line == "false":
		case field == "WorkingDir" && value == "/": // what an empty one means
		default:
			out = append(out, field+" "+line)
		}
	}
	return out
}

// lineDiff says which lines only want (-) or only have (+) has.
func lineDiff(want, have []string) string {
	var b strings.Builder
	for _, l := range want {
		if !slices.Contains(have, l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for _, l := range have {
		if !slices.Contains(want, l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}

// writeCorpusBase writes the tar of the base image: that of the scripts, and
// what containers want to mount over, some users, and corners.
func writeCorpusBase(file string) error {
	if err := writeBusybox(file); err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var errs []error
	add := func(h *tar.Header, content io.Reader) {
		errs = append(errs, w.WriteHeader(h))
		_, err := io.Copy(w, content)
		errs = append(errs, err)
	}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		add(h, r)
	}
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "run/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "etc/hosts", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "etc/hostname", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "etc/resolv.conf", Mode: 0o644},
		{Typeflag: tar.TypeDir, Name: "old/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "old/dir/", Mode: 0o750, Uid: 1000, Gid: 1000},
		{Typeflag: tar.TypeReg, Name: "old/dir/file", Mode: 0o640, Uid: 1000, Gid: 1000},
		{Typeflag: tar.TypeReg, Name: "old/file", Mode: 0o644},
		{Typeflag: tar.TypeLink, Name: "old/hard", Linkname: "old/file", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "old/setuid", Mode: 0o4755},
		{Typeflag: tar.TypeDir, Name: "old/sticky/", Mode: 0o1777},
		{Typeflag: tar.TypeDir, Name: "old/setgid/", Mode: 0o2775, Gid: 1000},
		{Typeflag: tar.TypeSymlink, Name: "old/link", Linkname: "dir", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "abs", Linkname: "/old/dir", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../../../old/dir", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "dangling", Linkname: "/not/there", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "tofile", Linkname: "old/file", Mode: 0o777},
	} {
		h.ModTime = time.Unix(1_700_000_000, 0)
		add(&h, strings.NewReader(""))
	}
	if err := errors.Join(append(errs, w.Close())...); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
