package build

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/timeline"
	"github.com/shaleproject/shale/internal/image"
)

// Request is one build. Its zero value, with a context, is `docker build .`.
type Request struct {
	Files    Files
	Language Language
	Run      Run
	Cache    Cache
	Attest   Attest

	// Outputs are what becomes of the result. Without any it goes into the
	// list of images, without a name.
	Outputs []Output

	Timeline bool // take down how the build goes; see [Result.Timeline]

	// Reproducible makes the result depend on nothing but what goes in: all
	// times are one, which needs no clock. docs/adr/0013-reproducible.md.
	Reproducible bool

	// Verify builds twice, reproducibly, and the second time without a cache.
	// If the two differ, the request fails with a [DifferenceError] and leaves
	// all names where they are.
	Verify bool

	// Jobs is how many steps may run at once; 0 is a number that suits the
	// machine.
	Jobs int
}

// Files say where the files of a build come from.
type Files struct {
	// Context is a directory, a URL, or "-": then Stdin has a tar of the
	// context or, if it is no archive, the Dockerfile of an empty one.
	Context string

	// Dockerfile is the path of the Dockerfile; empty means "Dockerfile" in
	// the context, "-" means Stdin. If the context is a tar, the path is one
	// inside it.
	Dockerfile string

	// Named are further contexts by name: directories, URLs that the front end
	// fetches ("docker-image://alpine", "https://…"), images in a directory
	// ("oci-layout://PATH[:TAG][@DIGEST]"), or stages of the Dockerfile
	// ("target:STAGE").
	Named map[string]string

	Stdin io.Reader
}

// Language is what the Dockerfile front end is told.
type Language struct {
	Target   string
	Args     map[string]string
	Labels   map[string]string
	Platform string // empty means this machine's; several have commas between them
	Call     string // what to answer instead of building (CallLint, say); see [Result.Answer]
}

// Run is what a RUN gets beside its root file system.
type Run struct {
	Network string // "default", "none" or "host"
	Hosts   []string
	ShmSize int64
	Ulimits []string // "nofile=1024:2048"
	Cgroup  string   // the parent of the control groups

	Secrets map[string][]byte
	Agents  map[string]string // sockets of SSH agents

	// Keys are files with private keys; each id gets an agent that has them.
	Keys map[string][]string

	// HostNetwork and Insecure allow a RUN to ask for more than the rest
	// gets.
	HostNetwork, Insecure bool
}

// Cache says which known results may be used.
type Cache struct {
	Ignore       bool     // none
	IgnoreStages []string // none for these stages
	Pull         bool     // ask the registry for base images that are here, too
	From, To     []CachePlace
	Explain      bool // say of every step why it was a hit or not; see [Result.Steps]
}

// Attest says what is told about an image, beside it.
type Attest struct {
	Provenance *Provenance // how it was built; nil tells nothing
	SBOM       bool        // the packages that it holds
}

func (a Attest) any() bool { return a.Provenance != nil || a.SBOM }

// Provenance says how much is told of a build.
type Provenance struct {
	Max          bool   // build arguments and all steps, too
	BuilderID    string // who says so; empty means shale
	Reproducible bool   // the user says that the build is
	InlineOnly   bool   // only beside an image, not beside files
}

// Result is what a build made.
type Result struct {
	// Image is what went into the list of images, for this machine's platform
	// if it was built for that; nil if nothing did.
	Image *image.Image

	// Target is the first image that was written: its manifest, or the index
	// of several, as a registry has it if it was pushed.
	Target ocispec.Descriptor

	// Config is the digest of the config of a single image.
	Config digest.Digest

	// Names are those of all images, in full.
	Names []string

	// Pushed is what registries have now.
	Pushed []Pushed

	// Answer is set if the request was a call, and then there is nothing else.
	Answer *Answer

	// Context is what the build would see of its context, if it was listed.
	Context []ContextFile

	// Timeline is how the build went, if the request asks for it; also of a
	// build that failed.
	Timeline *timeline.Timeline

	// Steps says of each step that can be cached whether it was, and why
	// not, if the request asks for it; also of a build that failed.
	Steps []cache.Verdict
}

// Pushed is a name, and what the registry has under it.
type Pushed struct {
	Name       string
	Descriptor ocispec.Descriptor
}

// ID is what the image is known by: the digest of its config, or that of an
// index of several platforms; empty if there is no image.
func (r Result) ID() digest.Digest {
	if r.Config != "" {
		return r.Config
	}
	return r.Target.Digest
}

// options are the request in the words of the front end
// (frontend/dockerui/config.go has the list).
func (r *Request) options() (map[string]string, error) {
	o := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			o[key] = value
		}
	}
	for name, value := range r.Language.Args {
		o["build-arg:"+name] = value
	}
	for name, value := range r.Language.Labels {
		o["label:"+name] = value
	}
	set("target", r.Language.Target)
	set("platform", r.Language.Platform)
	set("add-hosts", hosts(r.Run.Hosts))
	set("ulimit", strings.Join(r.Run.Ulimits, ","))
	set("cgroup-parent", r.Run.Cgroup)
	if r.Run.ShmSize > 0 {
		o["shm-size"] = strconv.FormatInt(r.Run.ShmSize, 10)
	}
	switch r.Run.Network {
	case "", "default":
	case "none", "host":
		o["force-network-mode"] = r.Run.Network
	default:
		return nil, fmt.Errorf("network %q: want default, none or host: %w", r.Run.Network, errdefs.ErrInvalidArgument)
	}
	if r.Cache.Ignore {
		o["no-cache"] = ""
	} else {
		set("no-cache", strings.Join(r.Cache.IgnoreStages, ","))
	}
	if r.Cache.Pull {
		o["image-resolve-mode"] = "pull"
	}
	if r.Language.Call != CallListContext { // that one is not the front end's
		set("requestid", r.Language.Call)
	}
	return o, nil
}

// hosts turns "name:ip" (and "name=ip") into what the front end reads.
func hosts(list []string) string {
	var out []string
	for _, h := range list {
		if !strings.Contains(h, "=") {
			h = strings.Replace(h, ":", "=", 1)
		}
		out = append(out, h)
	}
	return strings.Join(out, ",")
}

// contextName is a named context as the front end looks it up: a familiar
// image name without ":latest".
func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("context name %q: %w", name, errdefs.ErrInvalidArgument)
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// sorted are the names of m in order, so that errors and contexts come in the
// same one every time.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
