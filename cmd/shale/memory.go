package main

import (
	"math"
	"runtime"
	"runtime/debug"
)

// firstCollection is the memory in bytes below which no garbage is collected.
const firstCollection = 32 << 20

// collectLate puts the first collection of garbage off until the process
// needs firstCollection bytes; from then on Go's own rule holds, so that the
// peak of a large build stays what it was. Most commands end before: for
// `shale images` the collections were a quarter of all the time. A user's own
// GOGC or GOMEMLIMIT stays in force.
func collectLate(getenv func(string) string) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	usual := debug.SetGCPercent(-1)
	debug.SetMemoryLimit(firstCollection)
	// Nothing refers to it: the first collection finds it.
	found := new([64]byte)
	runtime.AddCleanup(found, func(percent int) {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(math.MaxInt64)
	}, usual)
}
