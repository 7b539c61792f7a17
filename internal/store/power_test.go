package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// shutdownNoFlush is FS_IOC_SHUTDOWN with FS_SHUTDOWN_FLAGS_NOLOGFLUSH
// (linux/fs.h): the file system stops at once, and what was not written to the
// disk yet never is.
const (
	fsIocShutdown   = 0x8004587d
	shutdownNoFlush = 2
)

// childAcknowledge makes images and prints the name of each that was stored.
func childAcknowledge(root string, args []string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := 0; ; i++ {
		l, err := s.Lease(ctx)
		if err != nil {
			return err
		}
		in, err := s.IngestLayer(l)
		if err != nil {
			return err
		}
		if _, err := in.Write(crashTar); err != nil {
			return err
		}
		if _, _, err := in.Commit(ctx, ""); err != nil {
			return err
		}
		desc, err := putImage(s, l, fmt.Appendf(nil, "layer %s %d", args[0], i), crashTar)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("docker.io/power/cut%s:%d", args[0], i%20)
		if err := s.SetRef(name, desc); err != nil {
			return err
		}
		fmt.Println(name)
		if i%7 == 6 {
			if _, err := s.Collect(ctx, CollectOptions{CacheBudget: -1}); err != nil {
				return err
			}
		}
		l.Close()
	}
}

func TestAPowerCutLosesNothingThatWasAcknowledged(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	tmp := t.TempDir()
	disk, dir := filepath.Join(tmp, "disk"), filepath.Join(tmp, "mnt")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run("truncate", "-s", "64M", disk)
	run(mkfs, "-q", disk)
	if out, err := exec.Command("mount", "-o", "loop", disk, dir).CombinedOutput(); err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	mounted := true
	defer func() {
		if mounted {
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}()
	root := filepath.Join(dir, "store")
	cuts := 20
	if testing.Short() {
		cuts = 3
	}
	r := rand.New(rand.NewPCG(3, 4))
	images := 0
	for cut := range cuts {
		cmd := child(t, "acknowledge", root, fmt.Sprint(cut))
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+r.IntN(200)) * time.Millisecond) // the random moment
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		flags := uint32(shutdownNoFlush)
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), fsIocShutdown, uintptr(unsafe.Pointer(&flags)))
		d.Close()
		if errno != 0 {
			t.Skip("no FS_IOC_SHUTDOWN: ", errno)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		mounted = false
		run("mount", "-o", "loop", disk, dir)
		mounted = true
		if out.Len() == 0 {
			continue
		}
		s, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		wantWhole(t, s)
		for name := range strings.Lines(out.String()) {
			images++
			if _, err := s.Resolve(strings.TrimSpace(name)); err != nil {
				t.Error(err)
			}
		}
		collect(t, s, CollectOptions{CacheBudget: -1, Grace: -1})
		wantWhole(t, s)
		s.Close()
		if t.Failed() {
			t.Fatalf("cut %d, after %d images", cut, strings.Count(out.String(), "\n"))
		}
	}
	if t.Logf("%d images acknowledged", images); images == 0 {
		t.Error("no image was stored before a cut")
	}
}
