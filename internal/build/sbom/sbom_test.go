package sbom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const dpkgStatus = `Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
Description: GNU C Library
 Package: not-a-package
 .
 Contains the standard libraries.

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
`

const apkInstalled = `C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
F:lib
R:libc.musl-x86_64.so.1

P:ssl_client
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
o:busybox
`

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }

func debian() fstest.MapFS {
	return fstest.MapFS{
		"usr/lib/os-release":                       file("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n"),
		"etc/os-release":                           {Data: []byte("../usr/lib/os-release"), Mode: fs.ModeSymlink | 0o777},
		"var/lib/dpkg/status":                      file(dpkgStatus),
		"var/lib/dpkg/status.d/base-files":         file("Package: base-files\nVersion: 12.4\nArchitecture: amd64\n"),
		"var/lib/dpkg/status.d/base-files.md5sums": file("0123  etc/debian_version\n"),
		"usr/lib/python3/dist-packages/Flask_Cors-4.0.0.dist-info/METADATA": file("Metadata-Version: 2.1\nName: Flask_Cors\nVersion: 4.0.0\nLicense: MIT\n\nName: no\nVersion: 9\n"),
		"usr/lib/python3/dist-packages/six.egg-info":                        file("Name: six\r\nVersion: 1.16\r\n"),
		"usr/lib/python3/dist-packages/old.egg-info/PKG-INFO":               file("Name: old\nVersion: 0.1\nLicense-Expression: BSD-3-Clause\nLicense: other\n"),
		"app/package.json":                               file(`{"name":"the-app-itself","version":"1"}`),
		"app/node_modules/left-pad/package.json":         file(`{"name":"left-pad","version":"1.3.0","license":"WTFPL","_resolved":"https://user:hunter2@registry/left-pad"}`),
		"app/node_modules/left-pad/test/package.json":    file(`{"name":"no","version":"1"}`),
		"app/node_modules/@babel/core/package.json":      file("\uFEFF" + `{"name":"@babel/core","version":"7.0.0","license":{"type":"MIT"}}`),
		"app/node_modules/broken/package.json":           file(`{"name":`),
		"app/node_modules/a/node_modules/b/package.json": file(`{"name":"b","version":"2.0.0"}`),
	}
}

func read(t *testing.T, fsys fstest.MapFS) Inventory {
	t.Helper()
	inv, err := Read(t.Context(), fsys)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func urls(inv Inventory) []string {
	var out []string
	for _, p := range inv.Packages {
		out = append(out, p.URL)
	}
	return out
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s are\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestEveryPackageManagerIsRead(t *testing.T) {
	inv := read(t, debian())
	expect(t, "packages", urls(inv), []string{
		"pkg:deb/debian/base-files@12.4?arch=amd64&distro=debian-12",
		"pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12",
		"pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc",
		"pkg:npm/%40babel/core@7.0.0",
		"pkg:npm/b@2.0.0",
		"pkg:npm/left-pad@1.3.0",
		"pkg:pypi/flask-cors@4.0.0",
		"pkg:pypi/old@0.1",
		"pkg:pypi/six@1.16",
	})
	expect(t, "skipped files", inv.Skipped, []string{"app/node_modules/broken/package.json: not the JSON of a package"})
	if want := (OS{"debian", "12", "Debian GNU/Linux 12 (bookworm)"}); inv.OS != want {
		t.Errorf("os is %+v, want %+v", inv.OS, want)
	}
	for _, p := range inv.Packages {
		if want := map[string]string{"old": "BSD-3-Clause", "@babel/core": "MIT", "left-pad": "WTFPL"}[p.Name]; want != "" && p.License != want {
			t.Errorf("license of %s is %q, want %q", p.Name, p.License, want)
		}
	}
}

func TestAlpineIsRead(t *testing.T) {
	for _, place := range []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"} {
		inv := read(t, fstest.MapFS{
			"etc/os-release": file("ID=alpine\nVERSION_ID=3.18.4\n"),
			place:            file(apkInstalled),
		})
		expect(t, "packages", urls(inv), []string{
			"pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4",
			"pkg:apk/alpine/ssl_client@1.36.1-r5?arch=x86_64&distro=alpine-3.18.4&upstream=busybox",
		})
	}
}

func TestAGoProgramNamesItsModules(t *testing.T) {
	program := goProgram(t)
	inv := read(t, fstest.MapFS{
		"usr/bin/tool":        {Data: program, Mode: 0o755},
		"usr/share/tool.data": {Data: program, Mode: 0o644},
		"usr/bin/script":      {Data: append([]byte("#!/bin/sh\n"), make([]byte, minBinary)...), Mode: 0o755},
		"usr/bin/garbage":     {Data: append([]byte("\x7fELF"), make([]byte, minBinary)...), Mode: 0o755},
	})
	if got := urls(inv); len(got) != 2 || got[0] != "pkg:golang/example.com/tool" || !strings.HasPrefix(got[1], "pkg:golang/stdlib@1.") {
		t.Errorf("packages are %q", got)
	}
}

func TestADocumentSaysWhatIsNotRead(t *testing.T) {
	inv := read(t, fstest.MapFS{"var/lib/rpm/Packages": file("Berkeley DB")})
	data, err := SPDX(inv, Subject{Name: "image"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `"comment":"Not read: var/lib/rpm/Packages: databases of rpm in Berkeley DB are not read"`; !strings.Contains(string(data), want) {
		t.Errorf("no %s in %s", want, data)
	}
}

// goProgram builds one; its flags hold a secret, as those of careless people
// do.
func goProgram(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.com/tool\n\ngo 1.24\n",
		"main.go": "package main\n\nvar key string\n\nfunc main() { println(key) }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-ldflags", "-X main.key=hunter2", "-o", "tool", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "tool"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheDocumentIsWhatSPDXWants(t *testing.T) {
	fsys := debian()
	fsys["usr/bin/tool"] = &fstest.MapFile{Data: goProgram(t), Mode: 0o755}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	data, err := SPDX(read(t, fsys), Subject{Name: "image", Version: "sha256:00", Created: at})
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.Version != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.SPDXID != "SPDXRef-DOCUMENT" || doc.Creation.Created != "2026-01-02T02:04:05Z" {
		t.Errorf("head is %+v", doc.Creation)
	}
	ids := map[string]bool{doc.SPDXID: true}
	for _, p := range doc.Packages {
		if ids[p.SPDXID] || strings.Trim(strings.TrimPrefix(p.SPDXID, "SPDXRef-"), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
			t.Errorf("id %q is there twice or not valid", p.SPDXID)
		}
		ids[p.SPDXID] = true
		if p.Name == "" || p.Download == "" || p.LicenseDeclared == "" || p.Copyright == "" {
			t.Errorf("package lacks a field: %+v", p)
		}
	}
	for _, r := range doc.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("relationship leads nowhere: %+v", r)
		}
	}
	if len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("%d relationships for %d packages", len(doc.Relationships), len(doc.Packages))
	}
	if bytes.Contains(data, []byte("hunter2")) {
		t.Error("the document holds a secret")
	}
}

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	at := time.Unix(1, 0)
	write := func(fsys fstest.MapFS) string {
		data, err := SPDX(read(t, fsys), Subject{Name: "image", Created: at})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := write(debian())
	for range 5 {
		if again := write(maps.Clone(debian())); again != first {
			t.Fatal("the documents differ")
		}
	}
	other := debian()
	other["var/lib/dpkg/status"] = file(strings.Replace(dpkgStatus, "5.2.15", "5.2.16", 1))
	namespace := func(s string) string {
		var doc document
		if err := json.Unmarshal([]byte(s), &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Namespace
	}
	if namespace(write(other)) == namespace(first) {
		t.Error("two documents have one namespace")
	}
}

func TestHostileRecordsAreBounded(t *testing.T) {
	var many strings.Builder
	for n := range maxPackages + 10 {
		fmt.Fprintf(&many, "Package: p%d\nVersion: 1\n\n", n)
	}
	fsys := fstest.MapFS{
		"var/lib/dpkg/status":                file(many.String()),
		"lib/apk/db/installed":               file("P:" + strings.Repeat("x", maxLine+1) + "\nV:1\n"),
		"a/node_modules/b/package.json":      file(`{"name":"` + strings.Repeat("b", maxField+1) + `"}`),
		"a/node_modules/big/package.json":    file(`{"name":"big"}` + strings.Repeat(" ", 1<<20)),
		"a/node_modules/number/package.json": file(`{"name":1}`),
		"x.dist-info/METADATA":               file("Name: \xff\xfe\nVersion: 1\n"),
		"etc/os-release":                     {Data: []byte("os-release"), Mode: fs.ModeSymlink | 0o777},
	}
	inv := read(t, fsys)
	if len(inv.Packages) != maxPackages {
		t.Errorf("%d packages", len(inv.Packages))
	}
	if len(inv.Skipped) != 6 {
		t.Errorf("skipped are %q", inv.Skipped)
	}
	if _, err := SPDX(inv, Subject{}); err != nil {
		t.Error(err)
	}
}

// brokenFS fails while it reads.
type brokenFS struct{ fstest.MapFS }

type brokenFile struct{ fs.File }

var errDisk = errors.New("input/output error")

func (brokenFile) Read([]byte) (int, error)          { return 0, errDisk }
func (brokenFile) ReadAt([]byte, int64) (int, error) { return 0, errDisk }
func (b brokenFS) Open(name string) (fs.File, error) {
	f, err := b.MapFS.Open(name)
	return brokenFile{f}, err
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	for name, f := range map[string]*fstest.MapFile{
		"etc/os-release":      file("ID=x"),
		"var/lib/dpkg/status": file(dpkgStatus),
		"bin/tool":            {Data: make([]byte, minBinary), Mode: 0o755},
	} {
		if _, err := Read(t.Context(), brokenFS{fstest.MapFS{name: f}}); !errors.Is(err, errDisk) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(dpkgStatus)
	f.Add(apkInstalled)
	f.Add(`{"name":"@a/b","version":"1"}`)
	f.Add("Name: a\nVersion: 1\n\nbody")
	f.Add("ID=debian\nVERSION_ID='12'\n")
	f.Fuzz(func(t *testing.T, text string) {
		fsys := fstest.MapFS{}
		for _, name := range []string{
			"etc/os-release", "var/lib/dpkg/status", "lib/apk/db/installed", "a.dist-info/METADATA", "b.egg-info", "node_modules/c/package.json",
		} {
			fsys[name] = file(text)
		}
		inv, err := Read(t.Context(), fsys)
		if err != nil {
			t.Fatal(err)
		}
		data, err := SPDX(inv, Subject{Name: "image"})
		if err != nil || !json.Valid(data) {
			t.Fatalf("document of %q: %v", text, err)
		}
	})
}

func FuzzPrograms(f *testing.F) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		f.Skip(err)
	}
	head, _ := io.ReadAll(io.LimitReader(self, 16<<10))
	self.Close()
	f.Add(head)
	f.Add(append([]byte("\x7fELF\x02\x01\x01"), make([]byte, minBinary)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Read(t.Context(), fstest.MapFS{"bin/x": {Data: data, Mode: 0o755}}); err != nil {
			t.Fatal(err)
		}
	})
}
