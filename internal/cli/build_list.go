package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/shaleproject/shale/internal/build"
)

// shownDirs is how many of the largest directories are listed.
const shownDirs = 10

// printContext lists what a build would see of its context: a line a file, the
// total, and the largest directories; or a JSON object a line.
func (f *buildFlags) printContext(w io.Writer, files []build.ContextFile) error {
	out := bufio.NewWriter(w)
	if f.listContext == "json" {
		e := json.NewEncoder(out)
		for _, file := range files {
			if err := e.Encode(contextRow{file.Path, strings.ToLower(file.Mode.String()), file.Size, file.Target}); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	var total int64
	var n int
	dirs := map[string]int64{}
	for _, file := range files {
		if file.Mode.IsDir() && !file.Empty {
			continue
		}
		fmt.Fprintf(out, "%9s  %s\n", units.HumanSize(float64(file.Size)), contextName(file))
		if !file.Mode.IsDir() {
			n++
		}
		total += file.Size
		for dir := path.Dir(file.Path); dir != "."; dir = path.Dir(dir) {
			dirs[dir] += file.Size
		}
	}
	fmt.Fprintf(out, "\nTotal: %s in %d files\n", units.HumanSize(float64(total)), n)
	printLargest(out, dirs)
	return out.Flush()
}

// contextRow is a file as --list-context=json shows it.
type contextRow struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"`
	Size   int64  `json:"size"`
	Target string `json:"target,omitempty"`
}

// contextName is the name of a file on a line of its own: quoted if it could
// be taken for something else.
func contextName(file build.ContextFile) string {
	name := printable(file.Path)
	switch {
	case file.Mode.IsDir():
		return name + "/"
	case file.Mode&fs.ModeSymlink != 0:
		return name + " -> " + printable(file.Target)
	}
	return name
}

func printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` && strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return q
	}
	return name
}

func printLargest(w io.Writer, dirs map[string]int64) {
	var names []string
	for name, size := range dirs {
		if size > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(dirs[b], dirs[a]), cmp.Compare(a, b)) })
	if len(names) == 0 {
		return
	}
	fmt.Fprintln(w, "\nLargest directories:")
	for _, name := range names[:min(len(names), shownDirs)] {
		fmt.Fprintf(w, "%9s  %s/\n", units.HumanSize(float64(dirs[name])), printable(name))
	}
}
