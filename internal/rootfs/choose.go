package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// choice is the answer that the store keeps.
type choice struct {
	Driver string `json:"driver"`
	Reason string `json:"reason"`
}

// Choose returns the driver called want, or if want is empty the first of
// erofs and overlay that works on this machine, for this user, on the file
// system of s. The reason is one sentence for people.
//
// What works is found out with a real mount, once for each kernel, user
// and file system; the answer is kept in s. If nothing works, the error is an
// [errdefs.ErrFailedPrecondition] that says what to do.
func Choose(s *store.Store, want string) (d Driver, reason string, err error) {
	drivers := map[string]Driver{"erofs": erofs{s}, "overlay": newOverlay(s)}
	if want != "" && drivers[want] == nil {
		return nil, "", fmt.Errorf("choose rootfs driver %q: there are erofs and overlay: %w", want, errdefs.ErrInvalidArgument)
	}
	key, err := machine(s.Root())
	if err != nil {
		return nil, "", fmt.Errorf("choose rootfs driver: %w", err)
	}
	kept := s.Cache("driver")
	var c choice
	if r, err := kept.Get(want + key); err == nil && json.Unmarshal(r.Data, &c) == nil && drivers[c.Driver] != nil {
		return drivers[c.Driver], c.Reason, nil
	}
	if c, err = try(s, drivers, want); err != nil {
		return nil, "", fmt.Errorf("choose rootfs driver: %w", err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, "", err
	}
	if err := kept.Put(want+key, store.Record{Data: data}); err != nil {
		return nil, "", fmt.Errorf("choose rootfs driver: %w", err)
	}
	return drivers[c.Driver], c.Reason, nil
}

// machine describes all that decides which driver works.
func machine(root string) (string, error) {
	kind, err := sys.FileSystem(root)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("@%s/%d/%s/%t/%d/%s", sys.KernelRelease(), os.Geteuid(), sys.EffectiveCapabilities(),
		sys.InUserNamespace(), sys.MappedIDs(), kind), nil
}

// try finds out by mounting.
func try(s *store.Store, drivers map[string]Driver, want string) (choice, error) {
	if os.Geteuid() != 0 {
		return choice{}, unmet{errors.New("an ordinary user mounts only in a user namespace")}
	}
	release := "Linux " + sys.KernelRelease()
	if want != "" {
		if err := probe(s, drivers[want]); err != nil {
			return choice{}, advise(s, fmt.Errorf("%s does not work here: %w", want, err))
		}
		return choice{want, "asked for, and it works on " + release}, nil
	}
	erofsErr := probe(s, drivers["erofs"])
	if erofsErr == nil {
		return choice{"erofs", release + " mounts layers where they lie"}, nil
	}
	if err := probe(s, drivers["overlay"]); err != nil {
		return choice{}, advise(s, err)
	}
	why := fmt.Sprintf("%s does not mount them where they lie (%v)", release, erofsErr)
	if sys.InUserNamespace() {
		why = "a user namespace may not mount them where they lie"
	}
	return choice{"overlay", "layers are unpacked into directories, because " + why}, nil
}

// probe stacks a tiny layer with d, reads a file of it and writes one.
func probe(s *store.Store, d Driver) error {
	ctx := context.Background()
	lease, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Close()
	dir, err := lease.TempDir()
	if err != nil {
		return err
	}
	l, err := tinyLayer(ctx, s, lease)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	mounts, err := d.Stack(ctx, []digest.Digest{l}, at, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	if err != nil {
		return err
	}
	return sys.PrivateMounts(func() error {
		if err := sys.MountAll(mounts); err != nil {
			return err
		}
		tree := filepath.Join(at, rootName)
		got, err := os.ReadFile(filepath.Join(tree, "probe"))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, probeContent) {
			return errors.New("the file of the layer has other bytes than the layer")
		}
		return os.WriteFile(filepath.Join(tree, "written"), got, 0o600)
	})
}

var probeContent = []byte("shale\n")

// tinyLayer puts a layer of one file into s.
func tinyLayer(ctx context.Context, s *store.Store, lease *store.Lease) (digest.Digest, error) {
	in, err := s.IngestLayer(lease)
	if err != nil {
		return "", err
	}
	defer in.Close()
	w := tar.NewWriter(in)
	if err := w.WriteHeader(&tar.Header{Name: "probe", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(probeContent))}); err != nil {
		return "", err
	}
	if _, err := w.Write(probeContent); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	l, _, err := in.Commit(ctx, "")
	return l, err
}

// advise adds to err what its reader can do about it.
func advise(s *store.Store, err error) error {
	advice := ""
	kind, kindErr := sys.FileSystem(s.Root())
	switch {
	case errdefs.IsPermissionDenied(err) && sys.InUserNamespace():
		advice = "overlayfs in a user namespace needs Linux 5.11, and a container around that allows it: "
	case errdefs.IsPermissionDenied(err):
		advice = "root may not mount here, perhaps because of a container around (docker run --privileged): "
	case kindErr == nil && errdefs.IsInvalidArgument(err) && notForUpper(kind):
		advice = fmt.Sprintf("%s can't hold what containers write: move the store (--root, SHALE_ROOT) "+
			"to a directory on a local disk, or in a container to a volume: ", kind)
	}
	return fmt.Errorf("%s%w", advice, unmet{err})
}

// notForUpper reports whether overlayfs takes no upper directory on a file
// system of that kind.
func notForUpper(kind string) bool {
	return strings.Contains(" overlayfs nfs fuse 9p ecryptfs erofs ", " "+kind+" ")
}

// unmet puts an error into the class of preconditions, whatever it was before.
type unmet struct{ error }

// FailedPrecondition is what package errdefs looks for.
func (unmet) FailedPrecondition() {}
