package sbom

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"maps"
	"strings"

	"github.com/package-url/packageurl-go"
)

// maxLine bounds one line of a record, in bytes.
const maxLine = 1 << 20

// control reads paragraphs of "Key: value" lines with empty lines between
// them (deb822(5); apk writes the same without the blank) and calls yield
// with the fields of each that keep names. Lines that begin with a blank go
// on with the field above and are left out.
func control(r io.Reader, keep map[string]bool, yield func(map[string]string) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	fields := map[string]string{}
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			if len(fields) > 0 && !yield(maps.Clone(fields)) {
				return nil
			}
			clear(fields)
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if _, twice := fields[key]; ok && keep[key] && !twice {
			fields[key] = strings.TrimSpace(value)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return errors.New("a line is too long")
	}
	if len(fields) > 0 && lines.Err() == nil {
		yield(fields)
	}
	return lines.Err()
}

func set(keys ...string) map[string]bool {
	m := map[string]bool{}
	for _, k := range keys {
		m[k] = true
	}
	return m
}

var (
	dpkg = format{limit: 64 << 20, read: (*reader).dpkg}
	apk  = format{limit: 64 << 20, read: (*reader).apk}

	dpkgFields = set("Package", "Status", "Version", "Architecture", "Source")
	apkFields  = set("P", "V", "A", "L", "o")
)

// dpkg reads dpkg's status file, or, of images without dpkg, a file of
// status.d, which has no Status.
func (r *reader) dpkg(name string, f io.Reader) error {
	return control(f, dpkgFields, func(p map[string]string) bool {
		if status, ok := p["Status"]; ok && !strings.HasSuffix(status, " installed") {
			return true // removed, with its configuration left behind
		}
		source, _, _ := strings.Cut(p["Source"], " ") // "glibc (2.36-9)"
		r.add(Package{
			Kind: packageurl.TypeDebian, Name: p["Package"], Version: p["Version"], Source: name,
			URL: r.distroURL(packageurl.TypeDebian, "debian", p["Package"], p["Version"], p["Architecture"], source),
		})
		return true
	})
}

// apk reads apk's database of installed packages (apk-package(5)).
func (r *reader) apk(name string, f io.Reader) error {
	return control(f, apkFields, func(p map[string]string) bool {
		r.add(Package{
			Kind: packageurl.TypeApk, Name: p["P"], Version: p["V"], License: p["L"], Source: name,
			URL: r.distroURL(packageurl.TypeApk, "alpine", p["P"], p["V"], p["A"], p["o"]),
		})
		return true
	})
}

// distroURL is the URL of a package of the distribution, or of fallback if
// that is not known.
func (r *reader) distroURL(kind, fallback, name, version, arch, upstream string) string {
	namespace, qualifiers := cmp.Or(r.out.OS.ID, fallback), r.distroQualifiers()
	if arch != "" {
		qualifiers["arch"] = arch
	}
	if upstream != "" && upstream != name {
		qualifiers["upstream"] = upstream
	}
	return packageURL(kind, namespace, name, version, qualifiers)
}

func (r *reader) distroQualifiers() map[string]string {
	q := map[string]string{}
	if r.out.OS.ID != "" {
		q["distro"] = strings.TrimSuffix(r.out.OS.ID+"-"+r.out.OS.Version, "-")
	}
	return q
}

func packageURL(kind, namespace, name, version string, qualifiers map[string]string) string {
	return packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}
