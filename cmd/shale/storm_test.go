package main_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// Sixteen processes at a time build, pull, tag, run and remove on one store.
// What one of them removes another may miss: "not found" and "in use" are
// answers. Anything else is a lost promise.
func TestSixteenProcessesShareAStore(t *testing.T) {
	f := newField(t)
	long := 60 * time.Second
	if testing.Short() {
		long = 5 * time.Second
	}
	remote := f.registry + "/app:1"
	f.must("build", "-q", "-t", remote, f.context)
	f.must("push", remote)

	work := [](func(n int) []string){
		func(n int) []string { return []string{"build", "-q", "-t", fmt.Sprint("built:", n%4), f.context} },
		func(n int) []string {
			return []string{"build", "-q", "--no-cache", "-t", fmt.Sprint("built:", n%4), f.context}
		},
		func(int) []string { return []string{"pull", "-q", remote} },
		func(n int) []string { return []string{"tag", remote, fmt.Sprint("tagged:", n%4)} },
		func(int) []string {
			return []string{"run", "--rm", "--network", "none", "busybox", "ls", "/bin/busybox"}
		},
		func(int) []string {
			return []string{"run", "--rm", "--pull", "never", "--network", "none", remote, "ls", "/copy"}
		},
		func(n int) []string { return []string{"rmi", fmt.Sprint("tagged:", n%4)} },
		func(n int) []string { return []string{"rmi", fmt.Sprint("built:", n%4)} },
		func(int) []string { return []string{"rmi", remote} },
		func(int) []string { return []string{"gc"} },
		func(int) []string { return []string{"images"} },
		func(int) []string { return []string{"ps", "-a"} },
		func(int) []string { return []string{"image", "prune", "-f"} },
	}
	end := time.Now().Add(long)
	var workers sync.WaitGroup
	var mu sync.Mutex
	done := make(map[string]int)
	for worker := range 16 {
		workers.Go(func() {
			for n := worker; time.Now().Before(end) && !t.Failed(); n += 16 {
				args := work[rand.IntN(len(work))](n)
				out, err := f.shale(args...).CombinedOutput()
				if err != nil && !expected(string(out)) {
					t.Errorf("shale %s: %v\n%s", strings.Join(args, " "), err, out)
				}
				mu.Lock()
				done[args[0]]++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	t.Logf("commands: %v", done)
	f.whole()
}

// expected says whether what a command printed is one of the answers that
// neighbours may cause.
func expected(out string) bool {
	out = strings.ToLower(out)
	for _, answer := range []string{"no such image", "not found", "in use", "is using", "no such container"} {
		if strings.Contains(out, answer) {
			return true
		}
	}
	return false
}
