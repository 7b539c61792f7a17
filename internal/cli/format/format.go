// Package format renders rows the way Docker's --format does: a table with
// Docker's columns, a Go template for each row, a template behind the word
// "table", or one JSON object a line.
//
// A row is a struct whose exported fields (and methods) are the placeholders
// that Docker documents for the command. The package knows no command.
package format

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/containerd/errdefs"
)

// Format is a parsed --format value. Make one with [Parse].
type Format struct {
	template *template.Template
	headers  map[string]string
	table    bool
}

// Parse reads spec, the value of a --format flag; standard is the template
// that an empty spec and the word "table" alone stand for, cells separated by
// tabs. headers gives each placeholder its column title.
//
// A template that does not parse ends in [errdefs.ErrInvalidArgument].
func Parse(spec, standard string, headers map[string]string) (*Format, error) {
	f := &Format{headers: headers}
	switch rest, isTable := strings.CutPrefix(spec, "table"); {
	case spec == "" || isTable && strings.TrimSpace(rest) == "":
		f.table, spec = true, standard
	case isTable:
		f.table, spec = true, strings.TrimSpace(rest)
	case spec == "json":
		spec = "{{json .}}"
	}
	spec = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(spec)
	t, err := template.New("").Funcs(functions).Parse(spec)
	if err != nil {
		return nil, fmt.Errorf("parse format %q: %w: %w", spec, err, errdefs.ErrInvalidArgument)
	}
	f.template = t
	return f, nil
}

// IsTable reports whether the output has a header line.
func (f *Format) IsTable() bool { return f.table }

// Write renders rows to w. A table has its header even if there are no rows.
func Write[T any](w io.Writer, f *Format, rows []T) error {
	// A tabwriter writes cell by cell.
	buffered := bufio.NewWriter(w)
	if !f.table {
		return errors.Join(writeRows(buffered, f, rows), buffered.Flush())
	}
	// The numbers are those of Docker's tables.
	tabs := tabwriter.NewWriter(buffered, 10, 1, 3, ' ', 0)
	err := f.header(tabs)
	if err == nil {
		err = writeRows(tabs, f, rows)
	}
	return errors.Join(err, tabs.Flush(), buffered.Flush())
}

func writeRows[T any](w io.Writer, f *Format, rows []T) error {
	for _, row := range rows {
		if err := f.line(w, row); err != nil {
			return err
		}
	}
	return nil
}

// One renders a single value with spec, as `inspect --format` does.
func One(w io.Writer, spec string, value any) error {
	f, err := Parse(spec, "", nil)
	if err != nil {
		return err
	}
	return f.line(w, value)
}

func (f *Format) header(w io.Writer) error {
	t, err := f.template.Clone()
	if err != nil {
		return err
	}
	// A header cell is its title, whatever is done to the value below it.
	same := func(v any, _ ...any) any { return v }
	last := func(args ...any) any { return args[len(args)-1] }
	t.Funcs(template.FuncMap{
		"json": same, "lower": same, "upper": same, "title": same,
		"split": same, "join": same, "pad": same, "truncate": same, "println": last,
	})
	var line bytes.Buffer
	if err := t.Execute(&line, f.headers); err != nil {
		return fmt.Errorf("render header: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	_, err = fmt.Fprintln(w, line.String())
	return err
}

func (f *Format) line(w io.Writer, row any) error {
	var line bytes.Buffer
	if err := f.template.Execute(&line, row); err != nil {
		return fmt.Errorf("render format: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}

// functions are those that Docker's CLI adds to text/template's own.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return "", err
		}
		return strings.TrimSuffix(out.String(), "\n"), nil
	},
	"split": strings.Split,
	"join":  strings.Join,
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, prefix, suffix int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", prefix) + s + strings.Repeat(" ", suffix)
	},
	"truncate": func(s string, n int) string {
		if r := []rune(s); n >= 0 && len(r) > n {
			return string(r[:n])
		}
		return s
	},
}
