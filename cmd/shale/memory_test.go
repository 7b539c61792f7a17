package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestCollectionsAreAsUsualAfterTheFirst(t *testing.T) {
	unset := func(string) string { return "" }
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	defer debug.SetMemoryLimit(math.MaxInt64)

	collectLate(unset)
	if limit := debug.SetMemoryLimit(-1); limit != firstCollection {
		t.Fatalf("the limit is %d bytes, want %d", limit, firstCollection)
	}
	var kept []byte
	for deadline := time.Now().Add(time.Minute); debug.SetMemoryLimit(-1) != math.MaxInt64; {
		if time.Now().After(deadline) {
			t.Fatal("the limit stays after much was allocated")
		}
		kept = make([]byte, 1<<20)
	}
	_ = kept
	// Half, if other tests of the process hold much.
	if percent := debug.SetGCPercent(100); percent != 100 && percent != 50 {
		t.Errorf("the percentage is %d afterwards, want 100", percent)
	}
}

func TestMuchInUseLeavesLessRoomForGarbage(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)

	collectOften(50)
	kept := make([]byte, crowded)
	for deadline := time.Now().Add(time.Minute); ; {
		runtime.GC()
		percent := debug.SetGCPercent(100)
		if percent == 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the percentage stays %d", percent)
		}
	}
	runtime.KeepAlive(kept)
}

func TestAUsersOwnRuleForCollectionsStays(t *testing.T) {
	collectLate(func(name string) string { return map[string]string{"GOGC": "50"}[name] })
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		t.Errorf("the limit is %d bytes", limit)
	}
}
