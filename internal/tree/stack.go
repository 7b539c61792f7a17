package tree

// Stack shows layers, lowest first, as one tree. Whiteouts and opaque
// directories take effect and are not seen.
func Stack(layers ...FS) FS { return notYet{"stack layers"} }
