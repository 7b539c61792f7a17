package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// corpusTime is the modification time of all files of a context, unless its
// set-up says otherwise.
var corpusTime = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// How a case stands to buildah.
type buildahState int

const (
	buildahSame    buildahState = iota // makes the same
	buildahDiffers                     // makes something else, or fails
	buildahLacks                       // is not asked
)

// testCase is one file of the corpus.
type testCase struct {
	file, name string
	archive    *txtar.Archive

	args    []string
	stdin   string // the file that is standard input; then the context is "-"
	fails   string // a regular expression: shale must fail with such an error
	needs   map[string]bool
	base    bool // there is a directory base, whose image is base-NAME
	buildah buildahState
	reason  string
	want    []string
}

func readCase(file string) (*testCase, error) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	k := &testCase{
		file: file, name: strings.TrimSuffix(filepath.Base(file), ".txtar"), archive: archive,
		needs: map[string]bool{},
	}
	for line := range strings.Lines(string(archive.Comment)) {
		if err := k.directive(strings.TrimSpace(line)); err != nil {
			return nil, err
		}
	}
	for _, f := range archive.Files {
		k.base = k.base || strings.HasPrefix(f.Name, "../base/")
		if f.Name == "want" {
			k.want = strings.Split(strings.TrimSuffix(string(f.Data), "\n"), "\n")
		}
	}
	return k, nil
}

var isDirective = regexp.MustCompile(`^([a-z]+(?: [a-z]+)?): (.*)$`)

func (k *testCase) directive(line string) error {
	m := isDirective.FindStringSubmatch(line)
	if m == nil {
		return nil // prose
	}
	switch key, value := m[1], m[2]; key {
	case "args":
		k.args = append(k.args, strings.Fields(value)...)
	case "stdin":
		k.stdin = value
	case "fails":
		k.fails = value
	case "needs":
		for _, n := range strings.Fields(value) {
			k.needs[n] = true
		}
	case "buildah lacks":
		k.buildah, k.reason = buildahLacks, value
	case "buildah differs":
		k.buildah, k.reason = buildahDiffers, value
	default:
		return fmt.Errorf("%s: unknown line %q", k.file, line)
	}
	return nil
}

func (k *testCase) flags(vars map[string]string) []string {
	var out []string
	for _, a := range k.args {
		out = append(out, os.Expand(a, func(name string) string { return vars[name] }))
	}
	return out
}

func (k *testCase) context(dir string) string {
	if k.stdin != "" {
		return "-"
	}
	return filepath.Join(dir, "ctx")
}

// extract writes the files of the case into dir: names are relative to the
// context, dir/ctx. Then the script "setup", if there is one, runs in the
// context.
func (k *testCase) extract(dir string, vars map[string]string) error {
	ctx := filepath.Join(dir, "ctx")
	if err := os.MkdirAll(ctx, 0o755); err != nil {
		return err
	}
	var setup []byte
	for _, f := range k.archive.Files {
		switch f.Name {
		case "want":
			continue
		case "setup":
			setup = f.Data
			continue
		}
		p := filepath.Join(ctx, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			return err
		}
	}
	if err := setTimes(dir); err != nil || setup == nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-eu", "-c", "umask 022\n"+string(setup))
	cmd.Dir, cmd.Env = ctx, append(os.Environ(), "TZ=UTC", "T="+corpusTime.Format(time.RFC3339))
	for name, value := range vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up: %w\n%s", err, out)
	}
	return nil
}

func setTimes(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			dirs = append(dirs, p)
			return err
		}
		return os.Chtimes(p, corpusTime, corpusTime)
	})
	for _, d := range dirs {
		err = errors.Join(err, os.Chtimes(d, corpusTime, corpusTime))
	}
	return err
}

// update replaces what the case wants.
func (k *testCase) update(want []string) error {
	data := []byte(strings.Join(want, "\n") + "\n")
	for i, f := range k.archive.Files {
		if f.Name != "want" {
			continue
		}
		if bytes.Equal(f.Data, data) {
			return nil
		}
		k.archive.Files = append(k.archive.Files[:i], k.archive.Files[i+1:]...)
		break
	}
	k.archive.Files = append(k.archive.Files, txtar.File{Name: "want", Data: data})
	return os.WriteFile(k.file, txtar.Format(k.archive), 0o644)
}
