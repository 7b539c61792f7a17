package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/progress"
)

// Create makes a container and returns its id. Nothing runs yet.
//
// Errors: [errdefs.ErrNotFound] without the image, [errdefs.ErrConflict] if
// the name is taken, [errdefs.ErrInvalidArgument] for settings that make no
// sense.
func (c *Containers) Create(ctx context.Context, o CreateOptions) (string, error) {
	r, err := c.create(ctx, o, nil)
	if err != nil {
		return "", err
	}
	return r.config.ID, nil
}

// create calls prepared, if it isn't nil, before anybody can find the
// container by a name or in a list.
func (c *Containers) create(ctx context.Context, o CreateOptions, prepared func(*record) error) (_ *record, err error) {
	if o.Name != "" && !validName().MatchString(o.Name) {
		return nil, because(errdefs.ErrInvalidArgument, "invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name)
	}
	if err := checkSettings(&o.Settings); err != nil {
		return nil, err
	}
	img, err := c.image(ctx, o)
	if err != nil {
		return nil, err
	}
	config, err := merge(o, img)
	if err != nil {
		return nil, err
	}
	config.ID, config.Created = NewID(), c.Now().UTC()
	if err := nameHost(config); err != nil {
		return nil, err
	}
	r := &record{dir: c.Store.ContainerDir(config.ID), config: *config, state: State{Status: Created}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.erase(r, true))
		}
	}()
	if err := c.volumes(ctx, r); err != nil {
		return nil, err
	}
	holds := append([]digest.Digest{img.Manifest.Digest, img.ConfigDigest}, img.DiffIDs...)
	if err := c.directory(config, holds); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	if prepared != nil {
		if err := prepared(r); err != nil {
			return nil, err
		}
	}
	return r, c.name(r, strings.TrimPrefix(o.Name, "/"))
}

// directory makes the container's. One that removes itself is not worth
// waiting for the disk.
func (c *Containers) directory(config *Config, holds []digest.Digest) (err error) {
	if config.Life.AutoRemove {
		_, err = c.Store.NewTransientContainer(config.ID, holds)
	} else {
		_, err = c.Store.NewContainer(config.ID, holds)
	}
	return err
}

// name writes the configuration under name, or under one that nobody has.
func (c *Containers) name(r *record, name string) error {
	for try := 0; ; try++ {
		r.config.Name = name
		if name == "" {
			r.config.Name = generateName(try)
		}
		if err := r.saveConfig(); err != nil {
			return fmt.Errorf("create container: %w", err)
		}
		err := c.claim(r.config.Name, r.config.ID)
		if err == nil || name != "" || !errors.Is(err, errdefs.ErrConflict) {
			if err != nil {
				r.config.Name = ""
			}
			return err
		}
	}
}

// image finds the image of o, and pulls it if it must.
func (c *Containers) image(ctx context.Context, o CreateOptions) (*image.Image, error) {
	var platform *ocispec.Platform
	if o.Platform != "" {
		p, err := image.ParsePlatform(o.Platform)
		if err != nil {
			return nil, err
		}
		platform = &p
	}
	if o.Pull != PullAlways {
		img, err := c.Images.Get(ctx, o.Image, platform)
		if err == nil || o.Pull == PullNever || !errors.Is(err, errdefs.ErrNotFound) {
			return img, err
		}
		name, perr := image.ParseName(o.Image)
		if perr != nil {
			return nil, perr
		}
		o.Progress.Emit(unableToFind(image.Familiar(name.String())))
	}
	if _, err := c.Images.Pull(ctx, o.Image, image.PullOptions{Platform: platform, Progress: o.Progress}); err != nil {
		return nil, err
	}
	return c.Images.Get(ctx, o.Image, platform)
}

// merge brings together what the person and the image say.
func merge(o CreateOptions, img *image.Image) (*Config, error) {
	s := o.Settings
	of := img.Config.Config
	p := &s.Process
	switch {
	case p.Entrypoint == nil:
		p.Entrypoint = of.Entrypoint
		if len(p.Cmd) == 0 {
			p.Cmd = of.Cmd
		}
	case len(p.Entrypoint) == 1 && p.Entrypoint[0] == "":
		p.Entrypoint = nil
	}
	if len(p.Args()) == 0 {
		return nil, because(errdefs.ErrInvalidArgument, "create container: no command specified, neither by the image nor here")
	}
	p.Env = mergeEnv(of.Env, p.Env)
	if p.Dir == "" {
		p.Dir = of.WorkingDir
	}
	if p.Dir == "" {
		p.Dir = "/"
	}
	if !path.IsAbs(p.Dir) {
		return nil, because(errdefs.ErrInvalidArgument, "working directory %q is invalid, it needs to be an absolute path", p.Dir)
	}
	p.Dir = path.Clean(p.Dir)
	if p.User == "" {
		p.User = of.User
	}
	if s.Life.StopSignal == "" {
		s.Life.StopSignal = of.StopSignal
	}
	s.Labels = mergeMaps(of.Labels, s.Labels)
	for port := range of.ExposedPorts {
		if !slices.Contains(s.Network.Expose, port) {
			s.Network.Expose = append(s.Network.Expose, port)
		}
	}
	slices.Sort(s.Network.Expose)
	if err := publishAll(&s.Network); err != nil {
		return nil, err
	}
	for _, target := range slices.Sorted(maps.Keys(of.Volumes)) {
		if !slices.ContainsFunc(s.Mounts, func(m Mount) bool { return path.Clean(m.Target) == path.Clean("/"+target) }) {
			s.Mounts = append(s.Mounts, Mount{Type: MountVolume, Target: path.Clean("/" + target), Anonymous: true})
		}
	}
	return &Config{
		Image: o.Image, ImageID: img.ConfigDigest, Manifest: img.Manifest.Digest,
		Platform: platformOf(img), Layers: img.DiffIDs, Settings: s,
	}, nil
}

func platformOf(img *image.Image) string {
	p := img.Config.OS + "/" + img.Config.Architecture
	if img.Config.Variant != "" {
		p += "/" + img.Config.Variant
	}
	return p
}

// nameHost gives a container that has no hostname its short id or, in the
// host's UTS namespace, the host's.
func nameHost(config *Config) (err error) {
	n := &config.Network
	if n.UTS == "host" || n.Hostname == "" && n.Mode == "host" {
		n.Hostname, err = os.Hostname()
		return err
	}
	if n.Hostname == "" {
		n.Hostname = config.ID[:12]
	}
	return nil
}

// mergeEnv lets the variables of own replace those of base. A name alone
// takes the variable away.
func mergeEnv(base, own []string) []string {
	env := slices.Clone(base)
	for _, e := range own {
		name, _, set := strings.Cut(e, "=")
		i := slices.IndexFunc(env, func(b string) bool { return strings.HasPrefix(b, name+"=") })
		switch {
		case set && i >= 0:
			env[i] = e
		case set:
			env = append(env, e)
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		}
	}
	return env
}

func mergeMaps(base, own map[string]string) map[string]string {
	if len(base) == 0 {
		return own
	}
	merged := maps.Clone(base)
	maps.Copy(merged, own)
	return merged
}

// publishAll gives each exposed port that isn't published a free one.
func publishAll(n *Network) error {
	if !n.PublishAll {
		return nil
	}
	for _, e := range n.Expose {
		ports, err := network.ParsePort(e)
		if err != nil {
			return err
		}
		for _, p := range ports {
			if !slices.ContainsFunc(n.Publish, func(q network.Port) bool {
				return q.ContainerPort == p.ContainerPort && q.Protocol == p.Protocol
			}) {
				n.Publish = append(n.Publish, p)
			}
		}
	}
	return nil
}

// checkSettings refuses what no container can have.
func checkSettings(s *Settings) error {
	targets := map[string]bool{}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if !path.IsAbs(m.Target) {
			return because(errdefs.ErrInvalidArgument, "mount path %q must be absolute", m.Target)
		}
		m.Target = path.Clean(m.Target)
		if m.Target == "/" {
			return because(errdefs.ErrInvalidArgument, "destination can't be '/'")
		}
		if targets[m.Target] {
			return because(errdefs.ErrInvalidArgument, "duplicate mount point: %s", m.Target)
		}
		targets[m.Target] = true
	}
	switch s.Life.Restart.Name {
	case "", "no", "always", "unless-stopped":
		if s.Life.Restart.MaximumRetryCount != 0 {
			return because(errdefs.ErrInvalidArgument, "maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
	default:
		return because(errdefs.ErrInvalidArgument, "invalid restart policy %q", s.Life.Restart.Name)
	}
	if s.Life.AutoRemove && s.Life.Restart.Name != "" && s.Life.Restart.Name != "no" {
		return because(errdefs.ErrInvalidArgument, "conflicting options: cannot specify both --restart and --rm")
	}
	switch s.Life.LogDriver {
	case "", "json-file", "none":
	default:
		return because(errdefs.ErrNotImplemented, "log driver %q: there are json-file and none", s.Life.LogDriver)
	}
	if s.Life.StopSignal != "" {
		if _, err := ParseSignal(s.Life.StopSignal); err != nil {
			return err
		}
	}
	if m := s.Resources.Memory; m != 0 && m < 6<<20 {
		return because(errdefs.ErrInvalidArgument, "minimum memory limit allowed is 6MB")
	}
	return checkNetwork(&s.Network)
}

func checkNetwork(n *Network) error {
	switch mode, _, _ := strings.Cut(n.Mode, ":"); mode {
	case "", "bridge", "default":
		n.Mode = "bridge"
	case "none", "host", "container":
		if mode != "none" && len(n.Publish) > 0 && mode == "container" {
			return because(errdefs.ErrInvalidArgument, "conflicting options: port publishing and the container type network mode")
		}
	default:
		return because(errdefs.ErrNotFound, "network %s not found", n.Mode)
	}
	for _, h := range n.ExtraHosts {
		if !strings.ContainsAny(h, ":=") {
			return because(errdefs.ErrInvalidArgument, "bad format for add-host: %q", h)
		}
	}
	for i, e := range n.Expose {
		port, protocol, found := strings.Cut(e, "/")
		if !found {
			protocol = "tcp"
		}
		if _, err := strconv.ParseUint(strings.SplitN(port, "-", 2)[0], 10, 16); err != nil {
			return because(errdefs.ErrInvalidArgument, "invalid range format for --expose: %s", e)
		}
		n.Expose[i] = port + "/" + protocol
	}
	return nil
}

// unableToFind is what Docker says before it pulls.
func unableToFind(name string) progress.Event {
	return progress.Event{Message: fmt.Sprintf("Unable to find image '%s' locally", name)}
}
