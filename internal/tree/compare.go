package tree

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// Compare calls differs for every file that is not the same in a and b, in the
// order of names, with what is different about it: "content differs at offset
// 4 …". What is in one of them only is told once, not with all that it holds.
// Of layers whiteouts and opaque directories count, too.
func Compare(ctx context.Context, a, b FS, differs func(path, how string)) error {
	c := &comparer{ctx: ctx, a: a, b: b, differs: differs}
	defer c.linksA.Close()
	defer c.linksB.Close()
	infoA, err := a.Lstat(".")
	if err != nil {
		return err
	}
	infoB, err := b.Lstat(".")
	if err != nil {
		return err
	}
	return c.both(".", infoA, infoB)
}

type comparer struct {
	ctx            context.Context //nolint:containedctx // of the one call
	a, b           FS
	differs        func(path, how string)
	linksA, linksB linkNames
}

func (c *comparer) both(path string, a, b fs.FileInfo) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	how, err := c.compare(path, a, b)
	if err != nil {
		return fmt.Errorf("compare %s: %w", absolute(path), err)
	}
	if how != "" {
		c.differs(path, how)
	}
	if a.IsDir() && b.IsDir() {
		return c.kids(path)
	}
	return nil
}

func (c *comparer) kids(path string) error {
	listA, err := c.a.ReadDir(path)
	if err != nil {
		return err
	}
	listB, err := c.b.ReadDir(path)
	if err != nil {
		return err
	}
	for len(listA) > 0 || len(listB) > 0 {
		switch {
		case len(listB) == 0 || len(listA) > 0 && listA[0].Name() < listB[0].Name():
			c.differs(join(path, listA[0].Name()), "is there the first time only")
			listA = listA[1:]
		case len(listA) == 0 || listB[0].Name() < listA[0].Name():
			c.differs(join(path, listB[0].Name()), "is there the second time only")
			listB = listB[1:]
		default:
			a, err := listA[0].Info()
			if err != nil {
				return err
			}
			b, err := listB[0].Info()
			if err != nil {
				return err
			}
			if err := c.both(join(path, a.Name()), a, b); err != nil {
				return err
			}
			listA, listB = listA[1:], listB[1:]
		}
	}
	return nil
}

// compare says what is different about one name; "" if nothing is.
func (c *comparer) compare(path string, a, b fs.FileInfo) (string, error) {
	statA, statB := statOf(a), statOf(b)
	if kindA, kindB := kindOf(a), kindOf(b); kindA != kindB {
		return fmt.Sprintf("is a %s, then a %s", kindA, kindB), nil
	}
	firstA, err := linked(&c.linksA, path, a)
	if err != nil {
		return "", err
	}
	firstB, err := linked(&c.linksB, path, b)
	if err != nil {
		return "", err
	}
	var how []string
	say := func(format string, args ...any) { how = append(how, fmt.Sprintf(format, args...)) }
	if a.Mode().IsRegular() {
		text, err := c.content(path)
		if err != nil {
			return "", err
		}
		how = append(how, text...)
	}
	if a.Mode().Type() == fs.ModeSymlink {
		targetA, errA := c.a.ReadLink(path)
		targetB, errB := c.b.ReadLink(path)
		if err := errors.Join(errA, errB); err != nil {
			return "", err
		}
		if targetA != targetB {
			say("link to %q, then to %q", targetA, targetB)
		}
	}
	if firstA != firstB {
		say("hard link of %q, then of %q", absolute(firstA), absolute(firstB))
	}
	if statA.Rdev != statB.Rdev {
		say("device %#x, then %#x", statA.Rdev, statB.Rdev)
	}
	if a.Mode() != b.Mode() {
		say("mode %04o, then %04o", unixMode(a.Mode())&0o7777, unixMode(b.Mode())&0o7777)
	}
	if statA.UID != statB.UID || statA.GID != statB.GID {
		say("owner %d:%d, then %d:%d", statA.UID, statA.GID, statB.UID, statB.GID)
	}
	if a.ModTime().Unix() != b.ModTime().Unix() {
		say("time %s, then %s", a.ModTime().UTC().Format(time.RFC3339), b.ModTime().UTC().Format(time.RFC3339))
	}
	if name := otherXattr(statA.Xattrs, statB.Xattrs); name != "" {
		say("extended attribute %s differs", name)
	}
	if statA.Opaque != statB.Opaque {
		say("replaces the directory below it: %t, then %t", statA.Opaque, statB.Opaque)
	}
	if statA.Implied != statB.Implied {
		say("is recorded itself: %t, then %t", !statA.Implied, !statB.Implied)
	}
	return strings.Join(how, "; "), nil
}

func kindOf(info fs.FileInfo) string {
	if statOf(info).Whiteout {
		return "removal"
	}
	switch info.Mode().Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "pipe"
	}
	return "device"
}

// linked returns the first name of the file, if it has several.
func linked(links *linkNames, path string, info fs.FileInfo) (string, error) {
	stat := statOf(info)
	if stat.Nlink < 2 || info.IsDir() {
		return path, nil
	}
	first, _, err := links.first(stat.Ino, path)
	return first, err
}

func otherXattr(a, b map[string][]byte) string {
	names := slices.Sorted(maps.Keys(a))
	names = append(names, slices.Sorted(maps.Keys(b))...)
	for _, name := range names {
		valueA, inA := a[name]
		valueB, inB := b[name]
		if inA != inB || !bytes.Equal(valueA, valueB) {
			return name
		}
	}
	return ""
}

// content finds the first byte that differs.
func (c *comparer) content(path string) ([]string, error) {
	fileA, err := c.a.Open(path)
	if err != nil {
		return nil, err
	}
	defer fileA.Close()
	fileB, err := c.b.Open(path)
	if err != nil {
		return nil, err
	}
	defer fileB.Close()
	a, b := bufio.NewReaderSize(fileA, compared), bufio.NewReaderSize(fileB, compared)
	for offset := int64(0); ; {
		partA, errA := peek(a)
		partB, errB := peek(b)
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
		n := 0
		for n < len(partA) && n < len(partB) && partA[n] == partB[n] {
			n++
		}
		switch {
		case n < len(partA) || n < len(partB):
			return []string{fmt.Sprintf("content differs at offset %d: %s, then %s", offset+int64(n), sample(partA[n:]), sample(partB[n:]))}, nil
		case n == 0:
			return nil, nil
		}
		offset += int64(n)
		_, errA = a.Discard(n)
		_, errB = b.Discard(n)
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
	}
}

// compared is how much is compared at once, in bytes.
const compared = 64 << 10

// peek returns what comes next: less than compared only at the end.
func peek(r *bufio.Reader) ([]byte, error) {
	data, err := r.Peek(compared)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data, err
}

// sample shows the begin of data.
func sample(data []byte) string {
	const shown = 24
	switch {
	case len(data) == 0:
		return "the end"
	case len(data) > shown:
		return fmt.Sprintf("%q…", data[:shown])
	}
	return fmt.Sprintf("%q", data)
}
