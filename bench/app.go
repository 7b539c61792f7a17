package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// application: what `make demo` builds. What it needs of the distribution is
// made once and kept where the demo keeps it.
func (b *bench) application() error {
	const kept = "demo/out"
	base := filepath.Join(kept, "python.tar")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
		if err := quiet("demo/base", base); err != nil {
			return err
		}
	}
	if err := quiet("demo/context", filepath.Join(kept, "app")); err != nil {
		return err
	}
	dir := b.path("demo")
	if err := quiet("cp", "-R", filepath.Join(kept, "app"), dir); err != nil {
		return err
	}
	all, err := b.builders(base, "python:3-slim")
	if err != nil {
		return err
	}
	source := filepath.Join(dir, "app.py")
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	change := changes(source, text)
	return b.three("the application of make demo", dir, all, change,
		[3]string{"0.9 x podman", "30 ms or 3 x version", "0.9 x podman"},
		side{name: "shale version", run: func() (*exec.Cmd, error) { return exec.Command(b.shale, "version"), nil }})
}
