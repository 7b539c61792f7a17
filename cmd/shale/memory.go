package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// firstCollection is the memory in bytes below which no garbage is collected.
	firstCollection = 32 << 20

	// crowded is how many bytes are in use when garbage has to be less.
	crowded = 32 << 20
)

// collectLate puts the first collection of garbage off until the process
// needs firstCollection bytes; from then on Go's own rule holds, so that the
// peak of a large build stays what it was. Most commands end before: for
// `shale images` the collections were a quarter of all the time. A user's own
// GOGC or GOMEMLIMIT stays in force.
//
// Go's rule lets garbage grow to the size of what is in use. Above crowded
// bytes, which takes a directory of some 200,000 files, half of that has to do.
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
		collectOften(percent / 2)
	}, usual)
}

// collectOften sets the percentage at the first collection that finds more
// than crowded bytes in use.
func collectOften(percent int) {
	found := new([64]byte)
	runtime.AddCleanup(found, func(percent int) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		if metrics.Read(live); live[0].Value.Uint64() < crowded {
			collectOften(percent)
			return
		}
		debug.SetGCPercent(percent)
	}, percent)
}
