package main

import (
	"fmt"
	"os"
	"os/exec"
)

// A builder is a program that builds images, with one base image in a store
// of its own.
type builder struct {
	name   string
	forget func() error // all that it has but the base image
	build  func(context string, args ...string) *exec.Cmd
}

// builders returns shale, then the others that this machine has. The base
// image is the root file system in tarball, called name.
func (b *bench) builders(tarball, name string) ([]builder, error) {
	all := []builder{{
		name: "shale build",
		forget: func() error {
			if err := os.RemoveAll(b.path("builder")); err != nil {
				return err
			}
			return b.do("builder", "import", tarball, name)
		},
		build: func(context string, args ...string) *exec.Cmd {
			return b.cmd("builder", append(append([]string{"build", "--network", "none", "-t", "built"}, args...), context)...)
		},
	}}
	// The two share a store, as they do on most machines.
	forget := func() error {
		if err := b.podman("rmi", "--all", "--force").Run(); err != nil {
			return fmt.Errorf("podman rmi: %w", err)
		}
		if out, err := b.podman("import", tarball, name).CombinedOutput(); err != nil {
			return fmt.Errorf("podman import: %w\n%s", err, out)
		}
		return nil
	}
	if have("podman") {
		all = append(all, builder{name: "podman build --layers", forget: forget, build: func(context string, args ...string) *exec.Cmd {
			return b.podman(append(append([]string{"build", "--pull=never", "--layers", "--network", "none", "-t", "built"}, args...), context)...)
		}})
		if have("buildah") {
			all = append(all, builder{name: "buildah build --layers", forget: forget, build: func(context string, args ...string) *exec.Cmd {
				return b.buildah(append(append([]string{"build", "--pull-never", "--layers", "--network", "none", "-t", "built"}, args...), context)...)
			}})
		}
	}
	for _, one := range all {
		if err := one.forget(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// buildah is buildah on podman's store.
func (b *bench) buildah(args ...string) *exec.Cmd {
	all := append([]string{"--root", b.path("podman"), "--runroot", b.path("podman-run"), "--storage-driver", "overlay"}, args...)
	cmd := exec.Command("buildah", all...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+b.path("containers.conf"), "BUILDAH_RUNTIME=runc")
	return cmd
}

// three measures a build in the three states that a user knows: nothing done
// yet, nothing changed, and one file changed.
func (b *bench) three(title, context string, all []builder, change func() error, goals [3]string, bounds ...side) error {
	rounds := min(b.rounds, 3)
	sides := func(before func(builder) error) []side {
		var out []side
		for _, one := range all {
			out = append(out, side{
				name:   one.name,
				before: func() error { return before(one) },
				run:    func() (*exec.Cmd, error) { return one.build(context), nil },
			})
		}
		return out
	}
	if err := compare(title+", cold", rounds, goals[0], sides(func(one builder) error { return one.forget() })...); err != nil {
		return err
	}
	// The first round, which doesn't count, finds another's image in the
	// store that podman and buildah share, and leaves its own.
	unchanged := append(sides(func(builder) error { return nil }), bounds...)
	if err := compare(title+", all cached", rounds, goals[1], unchanged...); err != nil {
		return err
	}
	return compare(title+", one file changed", rounds, goals[2], sides(func(builder) error { return change() })...)
}

// changes returns what writes text to a file with a last line that it never
// had.
func changes(file string, text []byte) func() error {
	n := 0
	return func() error {
		n++
		return os.WriteFile(file, fmt.Appendf(text[:len(text):len(text)], "# changed %d times\n", n), 0o644)
	}
}
