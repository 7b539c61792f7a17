package sbom

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"strings"

	"github.com/package-url/packageurl-go"
)

const (
	minBinary = 4 << 10 // the smallest file that can be a Go program

	// maxBinary bounds what is read of one program, in bytes. The list of its
	// modules lies near the start of a segment; only a program that lies
	// about its segments makes the search long.
	maxBinary = 256 << 20
)

// binary reads the modules that a Go program was built from out of the
// program, if name is one.
func (r *reader) binary(name string, size int64) error {
	in, err := r.open(name, size, maxBinary)
	if err != nil || in == nil {
		return err
	}
	defer in.Close()
	magic := make([]byte, 4)
	if _, err := in.ReadAt(magic, 0); err != nil || string(magic) != "\x7fELF" {
		return in.err
	}
	info, why := readBuildInfo(in)
	if in.err != nil {
		return fmt.Errorf("read %s: %w", name, in.err)
	}
	if why != "" {
		r.skip(name, why)
	}
	if info != nil {
		r.modules(name, info)
	}
	return nil
}

// readBuildInfo returns nil for a file that is no Go program. The parsers of
// debug/elf are not made for hostile files ("Security" in its documentation):
// a panic of theirs is a finding about the file.
func readBuildInfo(r io.ReaderAt) (info *debug.BuildInfo, why string) {
	defer func() {
		if p := recover(); p != nil {
			info, why = nil, "malformed program"
		}
	}()
	info, err := buildinfo.Read(r)
	if errors.Is(err, errTooMuch) {
		return nil, "program is too large to search"
	}
	if err != nil {
		return nil, ""
	}
	return info, ""
}

func (r *reader) modules(name string, info *debug.BuildInfo) {
	if version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " "); version != "" {
		r.module(name, "stdlib", version)
	}
	all := append([]*debug.Module{&info.Main}, info.Deps...)
	for _, m := range all {
		if m.Replace != nil {
			m = m.Replace
		}
		if strings.HasPrefix(m.Path, ".") || strings.HasPrefix(m.Path, "/") {
			continue // a directory of whoever built it
		}
		version := m.Version
		if version == "(devel)" {
			version = ""
		}
		r.module(name, m.Path, version)
	}
}

func (r *reader) module(source, name, version string) {
	if name == "" {
		return
	}
	namespace, base := path.Split(name)
	r.add(Package{
		Kind: packageurl.TypeGolang, Name: name, Version: version, Source: source,
		URL: packageURL(packageurl.TypeGolang, strings.TrimSuffix(namespace, "/"), base, version, nil),
	})
}

var errTooMuch = errors.New("too much to read")

// bounded reads no more than left bytes, all of them below size. It keeps an
// error of the file.
type bounded struct {
	r io.ReaderAt
	io.Closer
	size, left int64
	err        error
}

// open opens the file called name, of which at most left bytes are to be read.
// It is nil for a file that can't be read at any place. The caller closes it.
func (r *reader) open(name string, size, left int64) (*bounded, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	at, ok := f.(io.ReaderAt)
	if !ok {
		return nil, f.Close()
	}
	return &bounded{r: at, Closer: f, size: size, left: left}, nil
}

func (b *bounded) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= b.size {
		return 0, io.EOF
	}
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooMuch
	}
	n, err := b.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errors.ErrUnsupported) {
		b.err = err
	}
	return n, err
}
