package ops

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/cache"
)

// What the keys of steps are made of, for those who want to know what
// changed. Nothing here decides about a hit: that is [solver.Operation]'s Key.

// instructionOf is the name of a step without its number, which changes when
// a line is added somewhere else.
func instructionOf(name string) string {
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			return rest
		}
	}
	return name
}

func option(name string, value any) cache.Component {
	return cache.Component{Kind: cache.KindOption, Name: name, Sum: cache.Sum(fmt.Append(nil, value))}
}

func (t *Tools) epochPart() cache.Component {
	return option("SOURCE_DATE_EPOCH", t.epoch())
}

func (op *file) Parts() []cache.Component {
	data, _ := op.op.MarshalVT() // it could be marshalled when op was made
	return []cache.Component{
		{Kind: cache.KindInstruction, Sum: cache.Sum(data), Text: instructionOf(op.name)},
		op.tools.epochPart(),
	}
}

func (op *exec) Parts() []cache.Component {
	meta := op.op.Meta
	var args [][]byte
	for _, a := range meta.Args {
		args = append(args, []byte(a))
	}
	parts := []cache.Component{
		{Kind: cache.KindInstruction, Sum: cache.Sum(args...), Text: instructionOf(op.name)},
		op.tools.epochPart(),
		option("the platform", platforms.Format(platforms.Normalize(op.target()))),
		option("the user", meta.User),
		option("the working directory", meta.Cwd),
		option("the network mode", op.op.Network),
		option("the security mode", op.op.Security),
		option("the host name", meta.Hostname),
	}
	for _, e := range meta.Env {
		name, value, _ := strings.Cut(e, "=")
		parts = append(parts, cache.Component{Kind: cache.KindEnv, Name: name, Sum: cache.Sum([]byte(value))})
	}
	for _, m := range op.op.Mounts {
		if m.Dest != pb.RootMount {
			data, _ := m.MarshalVT()
			parts = append(parts, option("the mount at "+m.Dest, data))
		}
	}
	rest := op.op.CloneVT()
	rest.Mounts, rest.Network, rest.Security = nil, 0, 0
	rest.Meta.Args, rest.Meta.Env, rest.Meta.User, rest.Meta.Cwd, rest.Meta.Hostname, rest.Meta.ProxyEnv = nil, nil, "", "", "", nil
	data, _ := rest.MarshalVT()
	return append(parts, option("another option (hosts, limits, secrets, devices)", data))
}
