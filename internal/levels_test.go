package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// levels is the architecture: a package imports only packages of a lower
// level. A sub-package has the level of the first path element below
// internal/ and may import its siblings.
var levels = map[string]int{
	"progress": 0, "sys": 0,
	"layer": 1, "registry": 1,
	"tree":   2,
	"store":  3,
	"rootfs": 4, "sandbox": 4, "network": 4, "volume": 4,
	"image": 5,
	"build": 6, "container": 6,
	"engine": 7,
	"cli":    8, "api": 8, "web": 8,
}

const module = "github.com/shaleproject/shale/internal/"

func TestPackagesImportOnlyLowerLevels(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		own, _, below := strings.Cut(filepath.ToSlash(file), "/")
		if !below {
			return nil
		}
		level, known := levels[own]
		if !known {
			t.Errorf("%s: package %s has no level: add it to the table and to ARCHITECTURE.md", file, own)
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(file, "_test.go")
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			rest, ours := strings.CutPrefix(name, module)
			if !ours {
				continue
			}
			imported, _, _ := strings.Cut(rest, "/")
			if imported == own || test && levels[imported] <= level {
				continue
			}
			if levels[imported] >= level {
				t.Errorf("%s (level %d) imports %s (level %d)", file, level, path.Join("internal", rest), levels[imported])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
