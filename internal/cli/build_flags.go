package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
)

// buildFlags are the flags of `docker build`.
type buildFlags struct {
	file, target, network, cgroup           string
	platforms                               []string
	tags, args, labels, hosts, contexts     []string
	secrets, agents, ulimits, allow         []string
	noCacheFilter, outputs                  []string
	cacheFrom, cacheTo                      []string
	annotations, attest                     []string
	shmSize                                 string
	provenance, sbom, builder, call         string
	noCache, pull, push, load, quiet, check bool
	progress, iidfile, metadataFile         string
	listContext, timeline                   string
	explain                                 string
	reproducible, verify                    bool
	jobs                                    int

	to    []buildOutput
	asked buildCall
}

func (f *buildFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.hosts, "add-host", nil, `Add a custom host-to-IP mapping (format: "host:ip")`)
	flags.StringArrayVar(&f.allow, "allow", nil, `Allow extra privileged entitlement (e.g., "network.host", "security.insecure")`)
	flags.StringArrayVar(&f.annotations, "annotation", nil, `Add annotation to the image (format: "[index,manifest[os/arch]:]key=value")`)
	flags.StringArrayVar(&f.attest, "attest", nil, `Attestation parameters (format: "type=sbom,generator=image")`)
	flags.StringArrayVar(&f.args, "build-arg", nil, "Set build-time variables")
	flags.StringArrayVar(&f.contexts, "build-context", nil, `Additional build contexts (e.g., "name=path", "alpine=docker-image://alpine:3", "name=oci-layout://path:tag")`)
	flags.StringVar(&f.builder, "builder", "", "Ignored: there is one builder")
	flags.StringArrayVar(&f.cacheFrom, "cache-from", nil, `External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")`)
	flags.StringArrayVar(&f.cacheTo, "cache-to", nil, `Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")`)
	flags.StringVar(&f.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
	flags.StringVar(&f.cgroup, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	flags.BoolVar(&f.check, "check", false, `Shorthand for "--call=check"`)
	flags.StringVar(&f.explain, "explain", "", `Say of every step whether it was cached, and if not, what has changed ("plain", "json")`)
	flags.Lookup("explain").NoOptDefVal = "plain"
	flags.StringVarP(&f.file, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	flags.StringVar(&f.iidfile, "iidfile", "", "Write the image ID to a file")
	flags.IntVar(&f.jobs, "jobs", 0, "How many steps may run at once (0: as suits the machine)")
	flags.StringArrayVar(&f.labels, "label", nil, "Set metadata for an image")
	flags.StringVar(&f.listContext, "list-context", "", `Do not build, list what the build would see of the context ("plain", "json")`)
	flags.Lookup("list-context").NoOptDefVal = "plain"
	flags.BoolVar(&f.load, "load", false, `Shorthand for "--output=type=docker", which is the default`)
	flags.StringVar(&f.metadataFile, "metadata-file", "", "Write build result metadata to a file")
	flags.StringVar(&f.network, "network", "default", `Set the networking mode for the "RUN" instructions during build`)
	flags.BoolVar(&f.noCache, "no-cache", false, "Do not use cache when building the image")
	flags.StringSliceVar(&f.noCacheFilter, "no-cache-filter", nil, "Do not cache specified stages")
	flags.StringArrayVarP(&f.outputs, "output", "o", nil, `Output destination (format: "type=local,dest=path")`)
	flags.StringArrayVar(&f.platforms, "platform", nil, "Set target platform for build")
	flags.StringVar(&f.progress, "progress", "auto", `Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")`)
	flags.StringVar(&f.provenance, "provenance", "", `Shorthand for "--attest=type=provenance"`)
	flags.Lookup("provenance").NoOptDefVal = "true"
	flags.BoolVar(&f.pull, "pull", false, "Always attempt to pull all referenced images")
	flags.BoolVar(&f.push, "push", false, `Shorthand for "--output=type=registry"`)
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	flags.StringVar(&f.sbom, "sbom", "", `Shorthand for "--attest=type=sbom"`)
	flags.Lookup("sbom").NoOptDefVal = "true"
	flags.BoolVar(&f.reproducible, "reproducible", false, "Make the same image anywhere and at any time: all times are SOURCE_DATE_EPOCH, else that of the commit, else 1970")
	flags.StringArrayVar(&f.secrets, "secret", nil, `Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")`)
	flags.StringVar(&f.shmSize, "shm-size", "", `Shared memory size for build containers`)
	flags.StringArrayVar(&f.agents, "ssh", nil, `SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, `Name and optionally a tag (format: "name:tag")`)
	flags.StringVar(&f.target, "target", "", "Set the target build stage to build")
	flags.StringVar(&f.timeline, "timeline", "", "Draw how the build went into an HTML file")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "Ulimit options")
	flags.BoolVar(&f.verify, "verify", false, "Build twice, reproducibly, the second time without the cache, and name what differs (exit code 3)")
	addLegacyBuildFlags(flags)
}

// legacyBuildFlags are those of the builder before BuildKit. docker build
// takes them and does nothing; so do we, with a word about it.
var legacyBuildFlags = []struct {
	name, short string
	bool        bool
}{
	{"compress", "", true}, {"force-rm", "", true}, {"rm", "", true}, {"squash", "", true}, {"disable-content-trust", "", true},
	{"cpu-period", "", false}, {"cpu-quota", "", false}, {"cpu-shares", "c", false}, {"cpuset-cpus", "", false},
	{"cpuset-mems", "", false}, {"isolation", "", false}, {"memory", "m", false}, {"memory-swap", "", false},
	{"security-opt", "", false},
}

func addLegacyBuildFlags(flags *pflag.FlagSet) {
	for _, l := range legacyBuildFlags {
		if l.bool {
			flags.BoolP(l.name, l.short, l.name == "rm", "")
		} else {
			flags.StringArrayP(l.name, l.short, nil, "")
		}
		_ = flags.MarkHidden(l.name) // it exists
	}
}

// warnings tell of flags that have no effect.
func (f *buildFlags) warnings(flags *pflag.FlagSet) []string {
	var out []string
	for _, l := range legacyBuildFlags {
		if flags.Changed(l.name) {
			out = append(out, "--"+l.name+" has no effect")
		}
	}
	for _, o := range f.to {
		if o.dest == "" && !o.Push && (o.Form.Compression != layer.None || o.Plain) {
			out = append(out, "compression counts when an image leaves the store: add push=true, or use shale push --compression")
		}
	}
	return out
}

// request turns the flags into a request for the context at path.
func (f *buildFlags) request(path string, stdin io.Reader) (build.Request, error) {
	var err error
	if f.asked, err = f.parseCall(); err != nil {
		return build.Request{}, err
	}
	if f.explain != "" && f.explain != "plain" && f.explain != "json" {
		return build.Request{}, badValue("explain", f.explain, "want plain or json")
	}
	if f.jobs < 0 {
		return build.Request{}, badValue("jobs", strconv.Itoa(f.jobs), "want 0 or more")
	}
	platform, err := buildPlatforms(f.platforms, platforms.DefaultString())
	if err != nil {
		return build.Request{}, err
	}
	if f.timeline != "" {
		if info, err := os.Stat(filepath.Dir(f.timeline)); err != nil || !info.IsDir() {
			return build.Request{}, badValue("timeline", f.timeline, "there is no such directory")
		}
	}
	req := build.Request{
		Timeline: f.timeline != "",
		Files:    build.Files{Context: path, Dockerfile: f.file, Stdin: stdin},
		Language: build.Language{Target: f.target, Platform: platform, Call: f.asked.request, Args: buildArgs(f.args, os.LookupEnv)},
		Run: build.Run{
			Network: f.network, Hosts: f.hosts, Ulimits: f.ulimits, Cgroup: f.cgroup,
			HostNetwork: slices.Contains(f.allow, "network.host"),
			Insecure:    slices.Contains(f.allow, "security.insecure"),
		},
		Cache: build.Cache{Ignore: f.noCache, IgnoreStages: f.noCacheFilter, Pull: f.pull, Explain: f.explain != ""},

		Reproducible: f.reproducible, Verify: f.verify, Jobs: f.jobs,
	}
	if req.Language.Labels, err = pairs("label", f.labels, true); err != nil {
		return req, err
	}
	if req.Cache.From, err = cachePlaces("cache-from", f.cacheFrom); err != nil {
		return req, err
	}
	if req.Cache.To, err = cachePlaces("cache-to", f.cacheTo); err != nil {
		return req, err
	}
	if req.Files.Named, err = pairs("build-context", f.contexts, false); err != nil {
		return req, err
	}
	if f.shmSize != "" {
		if req.Run.ShmSize, err = units.RAMInBytes(f.shmSize); err != nil {
			return req, badValue("shm-size", f.shmSize, err.Error())
		}
	}
	if req.Run.Secrets, err = secrets(f.secrets, os.LookupEnv); err != nil {
		return req, err
	}
	if req.Run.Agents, req.Run.Keys, err = agents(f.agents, os.LookupEnv); err != nil {
		return req, err
	}
	if req.Attest, err = f.attestations(); err != nil {
		return req, err
	}
	f.to, err = f.parseOutputs()
	return req, err
}

// buildPlatforms reads --platform, which may be given several times and hold
// commas. "local" is this machine.
func buildPlatforms(values []string, local string) (string, error) {
	var list []string
	for _, value := range strings.Split(strings.Join(values, ","), ",") {
		if value = strings.TrimSpace(value); value == "" {
			continue
		}
		if value == "local" {
			value = local
		}
		p, err := image.ParsePlatform(value)
		if err != nil {
			return "", badValue("platform", value, err.Error())
		}
		if name := platforms.FormatAll(p); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return strings.Join(list, ","), nil
}

func badValue(flag, value, why string) error {
	return &ExitError{exitUsage, &usageError{fmt.Sprintf("invalid argument %q for \"--%s\" flag: %s", withoutSecrets(value), flag, why)}}
}

// pairs reads values of the form NAME=VALUE. With bare, NAME alone has an
// empty value.
func pairs(flag string, values []string, bare bool) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range values {
		name, value, found := strings.Cut(v, "=")
		if name == "" || !found && !bare {
			return nil, badValue(flag, v, "want NAME=VALUE")
		}
		out[name] = value
	}
	return out, nil
}

// commaPairs reads a value like "type=local,dest=out" (CSV, so that a value
// may be quoted).
func commaPairs(flag, value string) (map[string]string, error) {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return nil, badValue(flag, value, err.Error())
	}
	out := map[string]string{}
	for _, field := range fields {
		key, v, _ := strings.Cut(field, "=")
		out[strings.ToLower(strings.TrimSpace(key))] = v
	}
	return out, nil
}
