package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is no file stays what it is: as root, "--metadata-file /dev/null" must
// not replace the device.
func TestWhatIsWrittenReplacesFilesOnly(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	file := at("file")
	if err := os.WriteFile(file, []byte("an older and longer text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "file", "dangling": "new"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(at("pipe"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	nameless, err := os.Create(at("nameless"))
	if err != nil {
		t.Fatal(err)
	}
	defer nameless.Close()
	if err := os.Remove(at("nameless")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{at("link"), at("dangling"), at("pipe"), fmt.Sprintf("/proc/self/fd/%d", nameless.Fd())} {
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeOut(path, []byte("text")); err != nil {
			t.Errorf("write %s: %v", path, err)
		}
		if after, err := os.Lstat(path); err != nil || after.Mode().Type() != before.Mode().Type() {
			t.Errorf("%s was %v and is %v, %v", path, before.Mode(), after, err)
		}
	}
	for _, path := range []string{file, at("new")} {
		if data, err := os.ReadFile(path); string(data) != "text" {
			t.Errorf("%s has %q, %v", path, data, err)
		}
	}
	for _, f := range []*os.File{pipe, nameless} {
		var data [4]byte
		if _, err := f.Read(data[:]); string(data[:]) != "text" {
			t.Errorf("%s has %q, %v", f.Name(), data, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if err := writeOut(dir, nil); err == nil {
		t.Error("a directory is written to")
	}
}

func TestAFileMayHaveTheLongestName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	if err := writeOut(path, []byte("text")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); string(data) != "text" {
		t.Errorf("it has %q, %v", data, err)
	}
}
