package tree

// Device numbers are encoded as Linux's makedev does (see makedev(3)); an FS
// has them on every system that shale runs on.

func makedev(major, minor int64) uint64 {
	ma, mi := uint64(major), uint64(minor)
	return mi&0xff | ma&0xfff<<8 | mi&^0xff<<12 | ma&^0xfff<<32
}

func major(dev uint64) int64 { return int64(dev>>8&0xfff | dev>>32&^0xfff) }
func minor(dev uint64) int64 { return int64(dev&0xff | dev>>12&0xffffff00) }
