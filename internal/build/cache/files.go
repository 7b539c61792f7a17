package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/shaleproject/shale/internal/tree"
)

// maxFiles bounds how many names of an input, and of all inputs that a journal
// remembers, are kept.
const maxFiles = 30_000

// files takes down what a digest covers: names and sums, in turn. When there are
// more than maxFiles, those that lie deepest give way to the directories that
// hold them: "dir/" is everything below dir, and its sum that of theirs.
type files struct {
	list  []string
	depth int // how many parts a name can have; 0 is any number
	over  bool
}

// each returns what hears of the files of p.
func (f *files) each(p Part) func(string, tree.Sum) {
	dir := p.Path
	if p.Select.Wildcard {
		dir = path.Dir(path.Join("/", dir))
	}
	return func(name string, sum tree.Sum) {
		f.add(path.Join("/", dir, name)[1:], hex.EncodeToString(sum[:6]))
	}
}

func (f *files) add(name, sum string) {
	if f.over {
		return
	}
	f.list = appendFile(f.list, name, sum, f.depth)
	if len(f.list) <= 2*maxFiles {
		return
	}
	for len(f.list) > maxFiles { // half of it, or each directory would do this again
		if f.depth = max(1, deepest(f.list)) - 1; f.depth == 0 {
			f.over, f.list = true, nil
			return
		}
		f.list = fold(f.list, f.depth)
	}
}

// kept are the names and sums, and how many parts the names can have.
func (f *files) kept() ([]string, int) {
	if f == nil {
		return nil, 0
	}
	return f.list, f.depth
}

// fold makes names of more than depth parts directories of as many.
func fold(list []string, depth int) []string {
	out := list[:0:0]
	for i := 0; i+1 < len(list); i += 2 {
		out = appendFile(out, list[i], list[i+1], depth)
	}
	return out
}

// appendFile adds a name to list, to which those of the same directory were
// added last.
func appendFile(list []string, name, sum string, depth int) []string {
	if depth == 0 || parts(name) <= depth {
		return append(list, name, sum)
	}
	end := 0
	for range depth {
		end += strings.IndexByte(name[end:], '/') + 1
	}
	dir, weight := name[:end], weigh(name, sum)
	last := len(list) - 2
	if last < 0 || list[last] != dir {
		return append(list, dir, formatWeight(weight))
	}
	list[last+1] = formatWeight(weigh(dir, list[last+1]) + weight)
	return list
}

func parts(name string) int { return strings.Count(strings.TrimSuffix(name, "/"), "/") + 1 }

func deepest(list []string) int {
	most := 0
	for i := 0; i < len(list); i += 2 {
		most = max(most, parts(list[i]))
	}
	return most
}

// weigh is the number that a file adds to the sum of a directory. That of a
// directory is the sum itself, so that it doesn't matter in how many steps a
// file has become part of one.
func weigh(name, sum string) uint64 {
	if strings.HasSuffix(name, "/") {
		n, _ := strconv.ParseUint(sum, 16, 64)
		return n
	}
	h := sha256.Sum256([]byte(name + "\x00" + sum))
	return binary.BigEndian.Uint64(h[:])
}

func formatWeight(n uint64) string { return fmt.Sprintf("%012x", n&(1<<48-1)) }

// sameDepth makes two lists comparable.
func sameDepth(a []string, depthA int, b []string, depthB int) (foldedA, foldedB []string) {
	switch {
	case depthA == depthB:
	case depthA == 0 || depthB != 0 && depthB < depthA:
		a = fold(a, depthB)
	default:
		b = fold(b, depthA)
	}
	return a, b
}
