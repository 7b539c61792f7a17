package tree

import (
	"archive/tar"
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/layer"
)

// Layers of a stranger, lowest first, and what the stack shows of each
// directory: its mode, and whether a patch is needed for it.
func TestADirectoryThatIsOnlyImpliedKeepsTheAttributesOfTheLayerBelow(t *testing.T) {
	at := time.Unix(1e9, 0)
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: 1, Gid: 2, ModTime: at,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name} }
	link := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "x"}
	}
	type layers [][]tar.Header
	for name, c := range map[string]struct {
		layers layers
		want   string // modes of all directories but the root
		patch  string // names in the patch
	}{
		"nothing implied":         {layers{{dir("t", 0o700)}, {dir("t", 0o711), file("t/f")}}, "t=711", ""},
		"implied above":           {layers{{dir("t", 0o700)}, {file("t/f")}}, "t=700", ". t"},
		"implied twice":           {layers{{dir("t", 0o700)}, {file("t/f")}, {file("t/g")}}, "t=700", ". t"},
		"implied below":           {layers{{file("t/f")}, {dir("t", 0o700)}}, "t=700", ""},
		"implied in between":      {layers{{dir("t", 0o700)}, {file("t/f")}, {dir("t", 0o711)}}, "t=711", ""},
		"implied everywhere":      {layers{{file("t/f")}, {file("t/g")}}, "t=755", ""},
		"with those above it":     {layers{{dir("a", 0o700), dir("a/t", 0o711)}, {dir("a", 0o770), file("a/t/f")}}, "a=770 a/t=711", ". a a/t"},
		"whole way":               {layers{{dir("a", 0o700), dir("a/t", 0o711)}, {file("a/t/f")}}, "a=700 a/t=711", ". a a/t"},
		"opaque":                  {layers{{dir("t", 0o700), dir("t/s", 0o711)}, {file("t/.wh..wh..opq"), file("t/f")}}, "t=700", ". t"},
		"new below opaque":        {layers{{dir("t", 0o700), dir("t/s", 0o711)}, {file("t/.wh..wh..opq"), file("t/s/f")}}, "t=700 t/s=755", ". t"},
		"removed and made again":  {layers{{dir("t", 0o700)}, {file(".wh.t"), file("t/f")}}, "t=755", ""},
		"removed, then made":      {layers{{dir("t", 0o700)}, {file(".wh.t")}, {file("t/f")}}, "t=755", ""},
		"a link below":            {layers{{dir("t", 0o700)}, {link("t")}, {file("t/f")}}, "t=755", ""},
		"hidden by a layer above": {layers{{dir("t", 0o700)}, {file("t/f")}, {file(".wh.t")}}, "", ""},
		"whiteout in it":          {layers{{dir("t", 0o700), file("t/f")}, {file("t/.wh.f")}}, "t=700", ". t"},
		"the root":                {layers{{dir(".", 0o700)}, {file("f")}}, "", "."},
		"the root, opaque":        {layers{{dir(".", 0o700), dir("t", 0o711)}, {file(".wh..wh..opq"), file("t/f")}}, "t=755", "."},
	} {
		t.Run(name, func(t *testing.T) {
			var all []FS
			for _, l := range c.layers {
				all = append(all, opened(t, packed(t, l...)))
			}
			if got := modes(t, Stack(all...)); got != c.want {
				t.Errorf("stack shows %q, want %q", got, c.want)
			}
			var b bytes.Buffer
			w := layer.NewWriter(&b)
			needed, err := Patch(t.Context(), w, all...)
			must(t, err)
			must(t, w.Close())
			got := strings.ReplaceAll(" "+members(t, b.Bytes()), "./", ".")
			got = strings.TrimSpace(strings.ReplaceAll(got+" ", "/ ", " "))
			if got != c.patch || needed != (c.patch != "") {
				t.Errorf("patch holds %q, %t; want %q", got, needed, c.patch)
			}
			if !needed {
				return
			}
			patched := Stack(append(all, opened(t, b.Bytes()))...)
			if got, want := list(t, patched), list(t, Stack(all...)); got != want {
				t.Errorf("with the patch\n%swithout\n%s", got, want)
			}
			again, err := Patch(t.Context(), layer.NewWriter(&bytes.Buffer{}), append(all, opened(t, b.Bytes()))...)
			if again || err != nil {
				t.Errorf("a patched stack needs a patch: %v", err)
			}
			root, err := patched.Lstat(".")
			must(t, err)
			if want, err := Stack(all...).Lstat("."); err != nil || !sameAttr(root, want) {
				t.Errorf("root is %v, want %v, %v", root.Mode(), want.Mode(), err)
			}
		})
	}
}

// modes lists the directories of a tree.
func modes(t *testing.T, fsys FS) string {
	var all []string
	for l := range strings.Lines(list(t, fsys)) {
		name := strings.Fields(l)[2]
		if info, err := fsys.Lstat(name); err == nil && info.IsDir() {
			all = append(all, name+"="+strconv.FormatUint(uint64(info.Mode().Perm()), 8))
		}
	}
	return strings.Join(all, " ")
}

// A layer over a base that has another root says so.
func TestARootThatAnEditChangesIsInTheLayer(t *testing.T) {
	closed := opened(t, packed(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700}))
	usual := opened(t, packed(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}))
	data, _ := archived(t, func(w *layer.Writer) error { return Diff(t.Context(), closed, usual, w) })
	if got := members(t, data); got != "./" {
		t.Errorf("the layer holds %q", got)
	}
}
