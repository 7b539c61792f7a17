package cache

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/tree"
)

// bigContext takes down n files, 20 a directory and 50 directories in each above;
// the one called changed has another sum.
func bigContext(n int, changed string) *files {
	f := &files{}
	each := f.each(Part{Path: "/"})
	name := func(format string, i int) string { return fmt.Sprintf(format, i/1000, i/20) }
	for i := range n {
		if i%1000 == 0 {
			each(fmt.Sprintf("top%03d", i/1000), tree.Sum{})
		}
		if i%20 == 0 {
			each(name("top%03d/dir%05d", i), tree.Sum{})
		}
		file := name("top%03d/dir%05d", i) + fmt.Sprintf("/file%06d", i)
		sum := sha256.Sum256([]byte(file))
		if file == changed {
			sum[0]++
		}
		each(file, sum)
	}
	return f
}

func TestOfManyFilesDirectoriesAreKept(t *testing.T) {
	for n, depth := range map[int]int{1000: 0, 28_000: 0, 40_000: 2, 300_000: 1} {
		list, got := bigContext(n, "").kept()
		if got != depth || len(list) == 0 || len(list) > 2*maxFiles {
			t.Errorf("%d files: depth %d, %d names", n, got, len(list)/2)
		}
		names := map[string]bool{}
		for i := 0; i < len(list); i += 2 {
			if names[list[i]] {
				t.Fatalf("%d files: %s is there twice", n, list[i])
			}
			names[list[i]] = true
		}
	}
	flat := &files{}
	for i := range maxFiles + 1 {
		flat.add(fmt.Sprint(i), "sum")
	}
	if list, _ := flat.kept(); list != nil {
		t.Errorf("of a directory of too many files %d names are kept", len(list)/2)
	}
}

func TestAChangeAmongManyFilesIsFoundByItsDirectory(t *testing.T) {
	input := func(f *files, sum string) inputTrace {
		in := inputTrace{Kind: KindFile, Sum: sum}
		in.Files, in.Depth = f.kept()
		return in
	}
	for _, test := range []struct {
		was, is int
		want    string
	}{
		{20_000, 20_000, "file top007/dir00351/file007020 changed"},
		{40_000, 40_000, "files in top007/dir00351 changed"},
		{300_000, 300_000, "files in top007 changed"},
		{28_000, 40_000, "files in top007/dir00351 changed"}, // and those that are new
		{300_000, 28_000, "files in top007 changed"},
	} {
		was := input(bigContext(test.was, ""), "1")
		is := input(bigContext(test.is, "top007/dir00351/file007020"), "2")
		var words []string
		for _, r := range is.compare(was, false) {
			words = append(words, r.String())
		}
		if !slices.Contains(words, test.want) {
			t.Errorf("%d files, then %d: %.200s", test.was, test.is, strings.Join(words, "; "))
		}
		if test.was == test.is && len(words) != 1 {
			t.Errorf("%d files: %d changes for one: %.200s", test.is, len(words), strings.Join(words, "; "))
		}
	}
}

func TestItDoesNotMatterInHowManyStepsNamesAreFolded(t *testing.T) {
	var list []string
	for i := range 3000 {
		name := fmt.Sprintf("a%d/b%d/c%d/d%d/e%d", i/1000, i/300, i/50, i/10, i)
		list = append(list, name, fmt.Sprintf("%012x", i*i))
		if i%10 == 9 { // as a walk has it: behind all of the directory
			list = append(list, name[:strings.LastIndexByte(name, '/')]+fmt.Sprintf("-%d", i), "0123456789ab")
		}
	}
	for depth := 1; depth < 5; depth++ {
		at := fold(list, depth)
		stepwise := list
		for step := 4; step >= depth; step-- {
			stepwise = fold(stepwise, step)
		}
		if !slices.Equal(fileSumsSorted(at), fileSumsSorted(stepwise)) || len(at) >= len(list) {
			t.Errorf("depth %d: %d names at once, %d in steps", depth, len(at)/2, len(stepwise)/2)
		}
	}
}

func fileSumsSorted(list []string) []string {
	var all []string
	for name, sum := range fileSums(list) {
		all = append(all, name+" "+sum)
	}
	slices.Sort(all)
	return all
}
