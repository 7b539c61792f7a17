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
func indexWith(t testing.TB, data []byte, prepare func(*treeBuilder)) (index []byte, made made, err error) {
	t.Helper()
	made = none
	x := NewIndexer(os.TempDir())
	defer x.Close()
	prepare(x.tree)
	if _, err := x.Write(data); err != nil {
		return nil, none, err
	}
	switch {
	case x.tree.disorder:
		made = sorted
	case x.tree.names.made():
		made = table
	}
	var out growing
	_, err = x.Finish(&out)
	return out.b, made, err
}

// made is what an Indexer does for a tar that isn't in canonical order.
type made string

const (
	none   made = "nothing"
	table  made = "a table of names"
	sorted made = "a table of names, and directories sorted"
)

func asIs(*treeBuilder) {}

// withTable has names sought in the table from the first on, and sorted.
func withTable(t *treeBuilder) {
	t.names.make(t)
	t.disorder = true
}

// sameIndex checks that a tar has the same index with and without the table,
// and says what was made.
func sameIndex(t testing.TB, data []byte) made {
	t.Helper()
	got, made, err := indexWith(t, data, asIs)
	want, _, wantErr := indexWith(t, data, withTable)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("%v; with the table of names %v", err, wantErr)
	}
	if !bytes.Equal(got, want) {
		t.Error("the index differs from the one with the table of names")
	}
	return made
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
		made    made
	}{
		{"nothing", nil, none},
		{"ascending", []m{dir("a"), reg("a/b", "1"), dir("a/c"), reg("a/c/a", ""), reg("a/d", "2"), reg("b", "3")}, none},
		{"directories implied", []m{reg("a/b/c", "1"), reg("a/d/e", "2"), reg("b/a", "")}, none},
		{"directory after its content", []m{reg("a/b", "1"), dir("a"), dir("b")}, none},
		{"directories first", []m{dir("a"), dir("b"), reg("a/x", "1"), reg("b/x", "2"), reg("a/y", "3")}, none},
		{"descending", []m{reg("b", "1"), reg("a", "2")}, sorted},
		{"descending in a directory", []m{reg("d/b", "1"), reg("d/a", "2"), reg("e", "")}, sorted},
		{"name again", []m{reg("a", "1"), reg("a", "22"), reg("b", "3"), reg("a", "4")}, none},
		{"directory that gives way, twice", []m{reg("d/f", "1"), reg("d", "2"), dir("d"), reg("d/g", "3"), sym("d", "x"), reg("e", "4")}, none},
		{"older directory that gives way", []m{reg("a/f", "1"), reg("b", ""), reg("a", "2"), dir("a"), reg("a/e", "3"), reg("c", "4")}, none},
		{"whiteouts in the order of what they hide", []m{reg("d/a", "1"), reg("d/.wh.b", ""), reg("d/c", "2"), reg(".wh.e", "")}, none},
		{"whiteouts first", []m{reg("d/.wh.b", ""), reg("d/.wh..wh..opq", ""), reg("d/a", "1")}, sorted},
		{"whiteout and file", []m{reg(".wh.a", ""), dir("a"), reg("a/b", "1"), reg("b", "1"), reg(".wh.b", "")}, none},
		{"below symbolic links", []m{sym("a", "b"), reg("a/x", "1"), reg("a/y", "2"), sym("c", "/b/.."), reg("c/d", "3")}, none},
		{"hard links to names near", []m{reg("a", "1"), lnk("b", "a"), reg("c/a", "2"), lnk("c/b", "b"), lnk("d", "c/b")}, none},
		{"hard link to the oldest", far(lnk("e", "d/-")), table},
		{"… then names in order", append(far(lnk("e", "d/-")), reg("f/a", "1"), lnk("f/b", "d/-"), reg("f/c", "2"), reg("e", "3"), reg("g", "4")), table},
		{"… then one that isn't", append(far(lnk("e", "d/-")), reg("f/b", "1"), reg("f/a", "2")), sorted},
		{"hard link to a name that isn't there", []m{reg("a", "1"), reg("c", "2"), lnk("d", "b")}, none},
		{"newest again among many", far(reg(fmt.Sprintf("d/%03d", near-1), "22")), none},
		{"oldest again among many", far(reg("d/-", "22")), table},
	} {
		t.Run(c.name, func(t *testing.T) {
			if made := sameIndex(t, tarOf(t, c.members...)); made != c.made {
				t.Errorf("made %s, not %s", made, c.made)
			}
		})
	}
	if made := sameIndex(t, torture(t)); made != sorted {
		t.Errorf("for names in any order: %s", made)
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
	want, made, err := indexWith(t, tarOf(t, members...), asIs)
	if err != nil || made != none {
		t.Fatalf("%v, made %s", err, made)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	got, made, err := indexWith(t, tarOf(t, members...), asIs)
	if err != nil || made != sorted {
		t.Fatalf("%v, made %s", err, made)
	}
	if !bytes.Equal(got, want) {
		t.Error("the index depends on the order of the members")
	}
}
