package sbom

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/package-url/packageurl-go"
)

var (
	python = format{limit: 8 << 20, read: (*reader).python}
	npm    = format{limit: 1 << 20, read: (*reader).npm}

	pythonFields = set("Name", "Version", "License", "License-Expression")
)

// separators are all the same in names of Python packages (PEP 503).
var separators = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[-_.]+`)
})

// python reads the head of a METADATA or PKG-INFO (PyPA, "Core metadata
// specifications"); what follows the first empty line is a description.
func (r *reader) python(name string, f io.Reader) error {
	return control(f, pythonFields, func(p map[string]string) bool {
		license := p["License-Expression"]
		if license == "" {
			license = p["License"]
		}
		r.add(Package{
			Kind: packageurl.TypePyPi, Name: p["Name"], Version: p["Version"], License: license, Source: name,
			URL: packageURL(packageurl.TypePyPi, "", separators().ReplaceAllString(strings.ToLower(p["Name"]), "-"), p["Version"], nil),
		})
		return false
	})
}

// isModule tells whether dir is that of a package that npm has installed:
// node_modules/NAME or node_modules/@SCOPE/NAME.
func isModule(dir string) bool {
	parent := path.Dir(dir)
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules" && !strings.HasPrefix(path.Base(dir), "@")
}

// npm reads a package.json.
func (r *reader) npm(name string, f io.Reader) error {
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	var p struct {
		Name    string          `json:"name"`
		Version string          `json:"version"`
		License json.RawMessage `json:"license"` // a string; old ones have an object
	}
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\uFEFF")), &p); err != nil {
		return errors.New("not the JSON of a package")
	}
	var license string
	if json.Unmarshal(p.License, &license) != nil {
		var old struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal(p.License, &old) // then there is none
		license = old.Type
	}
	namespace, base := "", p.Name
	if scope, rest, ok := strings.Cut(p.Name, "/"); ok {
		namespace, base = scope, rest
	}
	r.add(Package{
		Kind: packageurl.TypeNPM, Name: p.Name, Version: p.Version, License: license, Source: name,
		URL: packageURL(packageurl.TypeNPM, namespace, base, p.Version, nil),
	})
	return nil
}
