//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay returns a detached mount of an overlay with Layers as its lower
// directories.
func (m Mount) overlay(a unix.MountAttr) (int, error) {
	const terse, wordy = true, false
	fd, err := m.overlayByLayer(a, terse)
	if err == nil || !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	// Before Linux 6.7 overlay knows no lowerdir+.
	if fd, err := m.overlayByPage(a); err == nil {
		return fd, nil
	}
	return m.overlayByLayer(a, wordy)
}

// overlayByLayer hands over one lower directory an option: any number of any
// length, up to the 500 that overlay can stack. A terse error does without the
// kernel's log, which takes a millisecond to read.
func (m Mount) overlayByLayer(a unix.MountAttr, terse bool) (int, error) {
	fs, err := openFS(m.Type)
	if err != nil {
		return -1, err
	}
	defer fs.Close()
	fs.terse = terse
	fs.set("source", m.Source)
	for i := len(m.Layers) - 1; i >= 0; i-- { // overlay wants the highest first
		fs.path("lowerdir+", m.Layers[i])
	}
	for _, option := range splitData(m.Data) {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case key == "upperdir" || key == "workdir":
			fs.path(key, value)
		case key == option:
			fs.flag(key)
		default:
			fs.set(key, value)
		}
	}
	if m.Flags&ReadOnly != 0 {
		fs.flag("ro")
	}
	return fs.mount(a)
}

// path sets an option to a path that overlay would take apart at a colon,
// comma or backslash if it saw it.
func (c *fsContext) path(key, path string) {
	if c.err == nil && strings.ContainsAny(path, `:,\`) {
		path, c.err = c.shorten(path)
	}
	c.set(key, path)
}

// overlayByPage goes through mount(2), whose options are one page: the
// directories are named by their descriptors, so that about 200 fit.
func (m Mount) overlayByPage(a unix.MountAttr) (int, error) {
	c := &fsContext{fd: -1}
	defer c.Close()
	var options, lowers []string
	for i := len(m.Layers) - 1; i >= 0; i-- {
		short, err := c.shorten(m.Layers[i])
		if err != nil {
			return -1, err
		}
		lowers = append(lowers, short)
	}
	if len(lowers) > 0 {
		options = append(options, "lowerdir="+strings.Join(lowers, ":"))
	}
	for _, option := range splitData(m.Data) {
		key, value, _ := strings.Cut(option, "=")
		if key == "upperdir" || key == "workdir" {
			short, err := c.shorten(value)
			if err != nil {
				return -1, err
			}
			option = key + "=" + short
		}
		options = append(options, option)
	}
	data := strings.Join(options, ",")
	if len(data) >= os.Getpagesize() {
		return -1, fmt.Errorf("%d layers: more than this kernel can stack: %w", len(lowers), unix.E2BIG)
	}
	// mount(2) only mounts at a place. The place is covered for a moment, and
	// the mount is taken away from it.
	place, err := os.MkdirTemp("", "overlay")
	if err != nil {
		return -1, err
	}
	defer os.Remove(place)
	source := m.Source
	if source == "" {
		source = m.Type
	}
	if err := unix.Mount(source, place, m.Type, m.Flags&^Recursive&^propagation, data); err != nil {
		return -1, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, place, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if uerr := unix.Unmount(place, unix.MNT_DETACH); err == nil && uerr != nil {
		unix.Close(fd)
		err = fmt.Errorf("take away from %s: %w", place, uerr)
	}
	if err != nil {
		return -1, err
	}
	p := unix.MountAttr{Attr_set: a.Attr_set, Attr_clr: a.Attr_clr, Propagation: a.Propagation}
	if p != (unix.MountAttr{}) {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &p); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set mount flags: %w", err)
		}
	}
	return fd, nil
}
