package layer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// indexWith returns the index of a tar, or the error for it. prepare sees the
// tree while it is empty.
func indexWith(t testing.TB, data []byte, prepare func(*treeBuilder)) (index []byte, tabled bool, err error) {
	t.Helper()
	x := NewIndexer(os.TempDir())
	defer x.Close()
	prepare(x.tree)
	if _, err := x.Write(data); err != nil {
		return nil, x.tree.names.made(), err
	}
	tabled = x.tree.names.made()
	var out growing
	_, err = x.Finish(&out)
	return out.b, tabled, err
}

func asIs(*treeBuilder) {}

func withTable(t *treeBuilder) { t.names.make(t) }

// sameIndex checks that a tar has the same index with and without the table,
// and says whether the table was made.
func sameIndex(t testing.TB, data []byte) (tabled bool) {
	t.Helper()
	got, tabled, err := indexWith(t, data, asIs)
	want, _, wantErr := indexWith(t, data, withTable)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("%v; with the table of names %v", err, wantErr)
	}
	if !bytes.Equal(got, want) {
		t.Error("the index differs from the one with the table of names")
	}
	return tabled
}

func TestTableOfNamesIsMadeForMembersOutOfOrderOnly(t *testing.T) {
	far := func(then m) []m {
		list := []m{reg("d/-", "")}
		for i := range near {
			list = append(list, reg(fmt.Sprintf("d/%03d", i), ""))
		}
		return append(list, then)
	}
	for _, c := range []struct {
		name    string
		members []m
		tabled  bool
	}{
		{"nothing", nil, false},
		{"ascending", []m{dir("a"), reg("a/b", "1"), dir("a/c"), reg("a/c/a", ""), reg("a/d", "2"), reg("b", "3")}, false},
		{"directories implied", []m{reg("a/b/c", "1"), reg("a/d/e", "2"), reg("b/a", "")}, false},
		{"directory after its content", []m{reg("a/b", "1"), dir("a"), dir("b")}, false},
		{"directories first", []m{dir("a"), dir("b"), reg("a/x", "1"), reg("b/x", "2"), reg("a/y", "3")}, false},
		{"descending", []m{reg("b", "1"), reg("a", "2")}, true},
		{"descending in a directory", []m{reg("d/b", "1"), reg("d/a", "2"), reg("e", "")}, true},
		{"name again", []m{reg("a", "1"), reg("a", "22"), reg("b", "3"), reg("a", "4")}, false},
		{"directory that gives way, twice", []m{reg("d/f", "1"), reg("d", "2"), dir("d"), reg("d/g", "3"), sym("d", "x"), reg("e", "4")}, false},
		{"older directory that gives way", []m{reg("a/f", "1"), reg("b", ""), reg("a", "2"), dir("a"), reg("a/e", "3"), reg("c", "4")}, false},
		{"whiteouts in the order of what they hide", []m{reg("d/a", "1"), reg("d/.wh.b", ""), reg("d/c", "2"), reg(".wh.e", "")}, false},
		{"whiteouts first", []m{reg("d/.wh.b", ""), reg("d/.wh..wh..opq", ""), reg("d/a", "1")}, true},
		{"whiteout and file", []m{reg(".wh.a", ""), dir("a"), reg("a/b", "1"), reg("b", "1"), reg(".wh.b", "")}, false},
		{"below symbolic links", []m{sym("a", "b"), reg("a/x", "1"), reg("a/y", "2"), sym("c", "/b/.."), reg("c/d", "3")}, false},
		{"hard links to names near", []m{reg("a", "1"), lnk("b", "a"), reg("c/a", "2"), lnk("c/b", "b"), lnk("d", "c/b")}, false},
		{"hard link to the oldest", far(lnk("e", "d/-")), true},
		{"hard link to a name that isn't there", []m{reg("a", "1"), reg("c", "2"), lnk("d", "b")}, false},
		{"newest again among many", far(reg(fmt.Sprintf("d/%03d", near-1), "22")), false},
		{"oldest again among many", far(reg("d/-", "22")), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if tabled := sameIndex(t, tarOf(t, c.members...)); tabled != c.tabled {
				t.Errorf("table made: %t", tabled)
			}
		})
	}
	if !sameIndex(t, torture(t)) {
		t.Error("no table was made for names in any order")
	}
}

// Members of all kinds with a few names, added one by one where they can be.
func TestTableOfNamesChangesNoIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	name := func() string {
		s := string(rune('a' + r.IntN(4)))
		for r.IntN(2) == 0 {
			s += "/" + string(rune('a'+r.IntN(4)))
		}
		return s
	}
	kinds := []func() m{
		func() m { return reg(name(), "content") }, func() m { return reg(name(), "") },
		func() m { return reg(name(), "") }, func() m { return dir(name()) }, func() m { return dir(name()) },
		func() m { return sym(name(), name()) }, func() m { return lnk(name(), name()) },
		func() m { return reg(name()+"/.wh."+string(rune('a'+r.IntN(4))), "") },
		func() m { return reg(name()+"/.wh..wh..opq", "") },
	}
	for range 80 {
		var members []m
		for range 20 {
			next := append(slices.Clip(members), kinds[r.IntN(len(kinds))]())
			if _, _, err := indexWith(t, tarOf(t, next...), asIs); err == nil {
				members = next
			}
			if sameIndex(t, tarOf(t, next...)); t.Failed() {
				t.Fatal(names0(next))
			}
		}
	}
}

// Files without content are in the index without a place in the tar.
func TestOrderOfMembersIsNotInTheIndex(t *testing.T) {
	var members []m
	for i := range 5000 {
		if i%50 == 0 {
			members = append(members, dir(fmt.Sprintf("d%03d", i/50)))
		}
		members = append(members, reg(fmt.Sprintf("d%03d/f%04d", i/50, i), ""))
	}
	want, tabled, err := indexWith(t, tarOf(t, members...), asIs)
	if err != nil || tabled {
		t.Fatalf("%v, table made: %t", err, tabled)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	got, tabled, err := indexWith(t, tarOf(t, members...), asIs)
	if err != nil || !tabled {
		t.Fatalf("%v, table made: %t", err, tabled)
	}
	if !bytes.Equal(got, want) {
		t.Error("the index depends on the order of the members")
	}
}
