package layer

// Stat is what a file has beside the fields of [fs.FileInfo]. The Sys method
// of every FileInfo of shale's own file systems returns a *Stat.
type Stat struct {
	// Ino is the same for two names exactly if they are hard links of one
	// file. It says nothing across layers.
	Ino uint64

	// Nlink counts the names of the file within its layer.
	Nlink uint32

	UID, GID uint32

	// Rdev is the number of a device, encoded as Linux's makedev does.
	Rdev uint64

	// Xattrs holds the extended attributes with their full names. Those of
	// overlayfs are not among them. It may be nil and must not be changed.
	Xattrs map[string][]byte

	// Whiteout says that the name hides a file of the layers below. Opaque
	// says that the directory hides all that it holds there.
	Whiteout, Opaque bool

	// Implied says that the tar doesn't hold the directory, only something in
	// it. Its attributes are made up; those of a layer below count, if one has
	// the directory.
	Implied bool
}
