// Package layer knows what a container layer is: a tar stream, and the file
// system that the stream describes.
//
// A layer is kept as its uncompressed tar. Beside it lies an index, an EROFS
// image without file contents whose regular files are byte ranges of the tar.
// The kernel mounts the pair, and [FS] reads it without a mount. Everything
// that a tar can say wrongly is refused while the index is made, so that what
// an index holds can be trusted:
//
//   - no name and no hard link leaves the root, nothing lies below a file;
//   - the last member of a name wins, as it does when a tar is unpacked;
//   - whiteouts are overlayfs whiteouts, and only a ".wh." member makes one.
//
// The formats are described in docs/format/layer.md.
package layer
