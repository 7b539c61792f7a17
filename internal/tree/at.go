package tree

import (
	"io/fs"
	"time"
)

// At shows fsys as if all its files had been modified at t. A tree that [Dir]
// opened shows that itself from then on; nothing may have been read of it
// before but what has no time.
func At(fsys FS, t time.Time) FS {
	if d, ok := fsys.(*hostDir); ok {
		d.modified = &t
		return d
	}
	return timed{fsys, t}
}

type timed struct {
	FS
	at time.Time
}

func (f timed) Lstat(name string) (fs.FileInfo, error) {
	info, err := f.FS.Lstat(name)
	if err != nil {
		return nil, err
	}
	return timedInfo{info, f.at}, nil
}

func (f timed) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := f.FS.ReadDir(name)
	for i, e := range entries {
		entries[i] = timedEntry{e, f.at}
	}
	return entries, err
}

func (f timed) Open(name string) (fs.File, error) {
	info, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openDir(f, name, info), nil
	}
	return f.FS.Open(name)
}

type timedInfo struct {
	fs.FileInfo
	at time.Time
}

func (i timedInfo) ModTime() time.Time { return i.at }

type timedEntry struct {
	fs.DirEntry
	at time.Time
}

func (e timedEntry) Info() (fs.FileInfo, error) {
	info, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	return timedInfo{info, e.at}, nil
}
