package main_test

import (
	"archive/tar"
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// writeArchive makes a tar of the members args[1:]: NAME is a file, NAME/ a
// directory, NAME=hard:TARGET and NAME=sym:TARGET are links.
func writeArchive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: archive FILE MEMBER...")
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, member := range args[1:] {
		name, link, _ := strings.Cut(member, "=")
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}
		content := "content of " + name + "\n"
		kind, target, found := strings.Cut(link, ":")
		switch {
		case found && kind == "hard":
			h.Typeflag, h.Linkname, content = tar.TypeLink, target, ""
		case found:
			h.Typeflag, h.Linkname, content = tar.TypeSymlink, target, ""
		case strings.HasSuffix(name, "/"):
			h.Typeflag, content = tar.TypeDir, ""
		default:
			content = strings.Repeat(content, 100)
		}
		h.Size = int64(len(content))
		ts.Check(w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		ts.Check(err)
	}
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o644))
}

// cutFile shortens a file to so many bytes.
func cutFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cut FILE BYTES")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// spoil turns over a bit of the last occurrence of a word in a file.
func spoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: spoil FILE WORD")
	}
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at := bytes.LastIndex(data, []byte(args[1]))
	if at < 0 {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// smallDisk mounts a tmpfs for the time of the script.
func smallDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: small-disk DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { ts.Check(unix.Unmount(dir, unix.MNT_DETACH)) })
}
