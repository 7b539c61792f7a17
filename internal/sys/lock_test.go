//go:build linux

package sys

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestExclusiveLockKeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Lock(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []LockKind{Shared, Exclusive} {
		if _, err := TryLock(path, how); !errdefs.IsUnavailable(err) {
			t.Errorf("second lock, kind %d: %v", how, err)
		}
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := TryLock(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestSharedLocksCoexist(t *testing.T) {
	dir := t.TempDir() // a directory can be locked too
	a, err := Lock(dir, Shared)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := TryLock(dir, Shared)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := TryLock(dir, Exclusive); !errdefs.IsUnavailable(err) {
		t.Errorf("exclusive over shared: %v", err)
	}
}

func TestWaiterNeverGetsARemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Lock(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *FileLock)
	go func() {
		l, err := Lock(path, Exclusive)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	if err := held.Remove(); err != nil {
		t.Fatal(err)
	}
	l := <-got
	defer l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error("the waiter holds a lock on a file that has no name:", err)
	}
	if _, err := TryLock(path, Exclusive); !errdefs.IsUnavailable(err) {
		t.Errorf("two holders: %v", err)
	}
}

func TestLockContextGivesUpAndLeavesNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Lock(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LockContext(ctx, path, Exclusive); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	held.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	again, err := LockContext(ctx, path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
