package ops

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shaleproject/shale/internal/sys"
)

func TestCacheMountsInUseAreNotPruned(t *testing.T) {
	root := t.TempDir()
	parent := filepath.Join(root, "cache", "mounts")
	for _, name := range []string{"used", "idle"} {
		if err := os.MkdirAll(filepath.Join(parent, name, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		lock, err := sys.Lock(filepath.Join(parent, name+".lock"), sys.Shared)
		if err != nil {
			t.Fatal(err)
		}
		if name == "used" {
			defer lock.Close()
		} else {
			lock.Close()
		}
	}
	if freed, err := PruneCacheMounts(root); err != nil || freed == 0 {
		t.Errorf("freed %d bytes: %v", freed, err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 2 || entries[0].Name() != "used" {
		t.Errorf("left: %v, %v", entries, err)
	}
	if freed, err := PruneCacheMounts(t.TempDir()); freed != 0 || err != nil {
		t.Errorf("of nothing: %d bytes, %v", freed, err)
	}
}
