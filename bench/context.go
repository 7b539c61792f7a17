package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const copyAll = "FROM bench-base\nCOPY . /src\n"

// context: COPY of a large context.
func (b *bench) context() error {
	dir := b.path("large")
	if err := b.manyFiles(dir, 20_000); err != nil {
		return err
	}
	for i := range 3 {
		if err := randomFile(filepath.Join(dir, fmt.Sprint("model", i, ".bin")), 50<<20, byte(i)); err != nil {
			return err
		}
	}
	ignore := "# what a project leaves out\n**/*.log\n.git\nnode_modules/.cache\n**/__pycache__\n!package1/keep.log\n"
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(ignore), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(copyAll), 0o644); err != nil {
		return err
	}
	all, err := b.builders(b.path("busybox.tar"), "bench-base")
	if err != nil {
		return err
	}
	change := changes(filepath.Join(dir, "package7", "dir3", "file0.js"), nil)
	return b.three("COPY of 20,000 files and 150 MB", dir, all, change,
		[3]string{"0.2 x podman", "0.05 x podman", "0.2 x podman"})
}

// randomFile writes size bytes that don't compress. It never holds all of
// them: the kernel counts what this process has held into the peak of those
// that it starts.
func randomFile(name string, size int64, seed byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size)
	return errors.Join(err, f.Close())
}

// manyFiles writes n small files and a few that the ignore file leaves out.
func (b *bench) manyFiles(dir string, n int) error {
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprint("package", i%100), fmt.Sprint("dir", i/100%10))
		if i < 1000 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		name := fmt.Sprint("file", i/1000, ".js")
		if i%200 == 199 {
			name = fmt.Sprint("file", i/1000, ".log")
		}
		text := strings.Repeat(fmt.Sprintf("line of file %d\n", i), 10+i%200)
		if err := os.WriteFile(filepath.Join(sub, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// memory: a context that is larger than what may be held of it.
func (b *bench) memory() error {
	dir := b.path("huge")
	if err := b.manyFiles(dir, 300_000); err != nil {
		return err
	}
	if err := quiet("truncate", "-s", "2G", filepath.Join(dir, "sparse.img")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(copyAll), 0o644); err != nil {
		return err
	}
	if err := b.do("huge-store", "import", b.path("busybox.tar"), "bench-base"); err != nil {
		return err
	}
	build := func() (*exec.Cmd, error) { return b.cmd("huge-store", "build", "-t", "built", dir), nil }
	change := changes(filepath.Join(dir, "package7", "dir3", "file0.js"), nil)
	cold := side{name: "shale build, cold", run: build, before: func() error { return b.do("huge-store", "builder", "prune", "-af") }}
	return compare("COPY of 300,000 files and a sparse one of 2 GB", 1, "peak of 200 MB", cold,
		side{name: "shale build, one file changed", run: build, before: change},
		side{name: "shale build, all cached", run: build})
}
