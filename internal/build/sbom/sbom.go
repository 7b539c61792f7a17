// Package sbom lists the packages that a file system holds, and writes the
// list as an SPDX document.
//
// It reads what package managers left behind, through a [tree.FS]: nothing is
// mounted, unpacked or run. What it reads was made by strangers: files,
// fields and the list itself are bounded, what makes no sense is left out and
// named in [Inventory.Skipped], and no content of a file is ever an error.
// The same file system gives the same list, and the same list the same bytes.
package sbom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shaleproject/shale/internal/tree"
)

// Package is one installed package.
type Package struct {
	Kind    string // as in a package URL: "deb", "apk", "rpm", "pypi", "npm", "golang"
	Name    string
	Version string // may be empty
	URL     string // the package URL (github.com/package-url/purl-spec)
	License string // in the words of its record, which may mean anything
	Source  string // the file that says so
}

// OS is the distribution that a file system belongs to (os-release(5)). Its
// zero value means none that is known.
type OS struct{ ID, Version, Name string }

// Inventory is what [Read] has found.
type Inventory struct {
	OS       OS
	Packages []Package // sorted

	// Skipped says what was not read and why, sorted.
	Skipped []string
}

// What a list may hold. An image that has more is described in part.
const (
	maxPackages = 30_000
	maxSkipped  = 100
	maxField    = 1024 // bytes of a name, a version or a license
)

// Read lists the packages in fsys. Its errors are those of fsys and of ctx.
func Read(ctx context.Context, fsys tree.FS) (Inventory, error) {
	r := &reader{fsys: fsys}
	var err error
	if r.out.OS, err = readOS(fsys); err != nil {
		return Inventory{}, err
	}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return r.file(name, d)
	})
	if err != nil {
		return Inventory{}, fmt.Errorf("list packages: %w", err)
	}
	slices.SortFunc(r.out.Packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.URL, b.URL), cmp.Compare(a.Source, b.Source))
	})
	r.out.Packages = slices.Compact(r.out.Packages)
	slices.Sort(r.out.Skipped)
	return r.out, nil
}

// reader is one Read on its way.
type reader struct {
	fsys tree.FS
	out  Inventory
}

// format is one way to write down what is installed.
type format struct {
	limit int64 // the largest file that is read, in bytes
	read  func(r *reader, name string, f io.Reader) error
}

// formatOf tells what the file called name is by its place.
func formatOf(name string) *format {
	dir, base := path.Split(name)
	switch {
	case name == "var/lib/dpkg/status", dir == "var/lib/dpkg/status.d/" && !strings.HasSuffix(base, ".md5sums"):
		return &dpkg
	case name == "lib/apk/db/installed", name == "usr/lib/apk/db/installed":
		return &apk
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info/"),
		base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info/"),
		strings.HasSuffix(base, ".egg-info"):
		return &python
	case base == "package.json" && isModule(strings.TrimSuffix(dir, "/")):
		return &npm
	}
	return nil
}

// file reads one file, if it is of a kind that is known.
func (r *reader) file(name string, d fs.DirEntry) error {
	kind := formatOf(name)
	info, err := d.Info()
	if err != nil {
		return err
	}
	if rpmDatabases[name] {
		return r.rpm(name, info.Size())
	}
	if kind == nil {
		if info.Mode()&0o111 == 0 || info.Size() < minBinary {
			return nil
		}
		return r.binary(name, info.Size())
	}
	if info.Size() > kind.limit {
		r.skip(name, fmt.Sprintf("%d bytes are more than %d", info.Size(), kind.limit))
		return nil
	}
	f, err := r.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &tracked{r: f}
	if err := kind.read(r, name, io.LimitReader(in, kind.limit)); in.err != nil {
		return fmt.Errorf("read %s: %w", name, in.err)
	} else if err != nil {
		r.skip(name, err.Error())
	}
	return nil
}

// tracked remembers an error of the file, so that it isn't taken for one of
// its content.
type tracked struct {
	r   io.Reader
	err error
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}

// add takes a package in.
func (r *reader) add(p Package) {
	for _, field := range []string{p.Name, p.Version, p.Source} {
		if len(field) > maxField || !utf8.ValidString(field) {
			r.skip(p.Source, "a package whose name or version is too long or no text")
			return
		}
	}
	if p.Name == "" {
		return
	}
	if len(p.License) > maxField || !utf8.ValidString(p.License) {
		p.License = ""
	}
	if len(r.out.Packages) == maxPackages {
		r.skip("/", fmt.Sprintf("more than %d packages", maxPackages))
		return
	}
	r.out.Packages = append(r.out.Packages, p)
}

func (r *reader) skip(name, why string) {
	line := strings.ToValidUTF8(name+": "+why, "\uFFFD")
	if len(r.out.Skipped) < maxSkipped && !slices.Contains(r.out.Skipped, line) {
		r.out.Skipped = append(r.out.Skipped, line)
	}
}
