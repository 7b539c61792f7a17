// Package limit refuses Dockerfiles that are small and would become large.
//
// The front end replaces variables in memory while it reads: 40 lines that
// each double the one before stand for terabytes. So what a Dockerfile can
// grow to is computed beforehand, from the lengths of its values alone. The
// result is never less than what the front end would make of it.
package limit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/archiveutil"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a Dockerfile may be. Text that it has itself does not count as growth.
const (
	// maxGrowth is what the variables of one instruction may stand for, in
	// bytes. Linux gives no process a value of more than 128 KiB.
	maxGrowth = 1 << 20

	// maxTotal is the same for all instructions together and for the
	// environments that its RUNs are given.
	maxTotal = 64 << 20

	// maxLookups is how many scopes all variables may be looked for in: each
	// stage that begins as another one has one more.
	maxLookups = 100_000_000

	// maxDepth is how deep ${a:-${b:-…}} may be nested.
	maxDepth = 100

	// maxInstructions and maxLines bound the time and the memory that it
	// takes to read it.
	maxInstructions = 10_000
	maxLines        = 1_000_000
)

// Guard watches over what the front end of one build reads. Its methods may be
// called at once. What they refuse for its size is an
// [errdefs.ErrResourceExhausted], with the place in the Dockerfile.
type Guard struct {
	mu         sync.Mutex
	name       string
	dockerfile []byte
	base       base
}

// base is what is there before the first instruction of a stage: what build
// arguments and base images bring, of several images the most.
type base struct {
	lengths  map[string]int64 // of variables, in bytes
	triggers []string
}

// NewGuard returns a guard over a build with those arguments.
func NewGuard(args map[string]string) *Guard {
	g := &Guard{base: base{lengths: map[string]int64{}}}
	for name, value := range args {
		g.base.add(name, value)
	}
	return g
}

func (b *base) add(name, value string) { b.lengths[name] = max(b.lengths[name], int64(len(value))) }

// Dockerfile checks a Dockerfile before it is taken apart. One that can't be is
// left to the front end, which says so better.
func (g *Guard) Dockerfile(name string, data []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.name, g.dockerfile = name, data
	return g.check()
}

// Base checks the Dockerfile again, now that it is known what comes of a base
// image with that config.
func (g *Guard) Base(config []byte) error {
	var image struct {
		Config struct {
			ocispec.ImageConfig
			OnBuild []string
		} `json:"config"`
	}
	if json.Unmarshal(config, &image) != nil {
		return nil // somebody else's to say
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range image.Config.Env {
		name, value, _ := strings.Cut(v, "=")
		g.base.add(name, value)
	}
	g.base.triggers = append(g.base.triggers, image.Config.OnBuild...)
	return g.check()
}

func (g *Guard) check() error {
	if at := bytes.IndexByte(g.dockerfile, 0); at >= 0 && !archiveutil.IsArchive(g.dockerfile) {
		line := 1 + bytes.Count(g.dockerfile[:at], []byte("\n"))
		return g.place(fmt.Errorf("a zero byte, which no text in UTF-8 has: %w", errdefs.ErrInvalidArgument), line, line)
	}
	if bytes.Count(g.dockerfile, []byte("\n")) > maxLines {
		return tooMuch("the Dockerfile has more than %d lines", maxLines)
	}
	c := &checker{stages: map[string]*scope{}, base: g.base, global: scope{lookups: new(int64)}}
	node, err := c.check(g.dockerfile)
	if err == nil || node == nil {
		return err
	}
	return g.place(err, node.StartLine, node.EndLine)
}

// place adds to err the lines that it is about.
func (g *Guard) place(err error, from, to int) error {
	return bkerrdefs.WithSource(err, &bkerrdefs.Source{
		Info:   &pb.SourceInfo{Data: g.dockerfile, Filename: g.name, Language: "Dockerfile"},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(from)}, End: &pb.Position{Line: int32(to)}}},
	})
}

func tooMuch(format string, args ...any) error {
	return errdefs.ErrResourceExhausted.WithMessage(fmt.Sprintf(format, args...))
}

func tooLong() error { return tooMuch("its variables stand for more than %d bytes", maxGrowth) }
