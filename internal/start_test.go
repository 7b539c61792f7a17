package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A pattern that is compiled when the program starts costs every command some
// 100 µs, and every container's first process as much again: sync.OnceValue
// compiles it for who uses it.
func TestNoPatternIsCompiledAtTheStart(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range parsed.Decls {
			values, isValues := decl.(*ast.GenDecl)
			if !isValues {
				continue
			}
			ast.Inspect(values, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncLit:
					return false
				case *ast.SelectorExpr:
					if p, named := n.X.(*ast.Ident); named && p.Name == "regexp" && strings.HasPrefix(n.Sel.Name, "MustCompile") {
						t.Errorf("%s: compiled at the start", files.Position(n.Pos()))
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
