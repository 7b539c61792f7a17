package cli

import (
	"encoding/csv"
	"path/filepath"
	"strings"

	"github.com/shaleproject/shale/internal/container"
)

// storage translates --volume, --mount and --tmpfs.
func (f *containerFlags) storage(s *container.Settings) error {
	for _, v := range f.volumes {
		m, err := parseVolume(v)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, m)
	}
	for _, v := range f.mounts {
		m, err := parseMount(v)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, m)
	}
	for _, v := range f.tmpfs {
		target, options, _ := strings.Cut(v, ":")
		m := container.Mount{Type: container.MountTmpfs, Target: target}
		if options != "" {
			m.Options = strings.Split(options, ",")
		}
		s.Mounts = append(s.Mounts, m)
	}
	return nil
}

// parseVolume reads [SOURCE:]TARGET[:OPTIONS] of --volume.
func parseVolume(v string) (container.Mount, error) {
	m := container.Mount{Type: container.MountVolume}
	parts := strings.Split(v, ":")
	switch len(parts) {
	case 1:
		m.Target, m.Anonymous = parts[0], true
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
	default:
		return m, invalid("invalid volume specification: '%s'", v)
	}
	if m.Target == "" || len(parts) > 1 && m.Source == "" {
		return m, invalid("invalid volume specification: '%s'", v)
	}
	if strings.HasPrefix(m.Source, "/") || strings.HasPrefix(m.Source, ".") || strings.HasPrefix(m.Source, "~") {
		source, err := filepath.Abs(m.Source)
		if err != nil {
			return m, err
		}
		m.Type, m.Source, m.CreateSource = container.MountBind, source, true
	}
	if len(parts) < 3 {
		return m, nil
	}
	for _, option := range strings.Split(parts[2], ",") {
		switch option {
		case "ro", "readonly":
			m.ReadOnly = true
		case "rw", "z", "Z", "cached", "delegated", "consistent", "":
			// z and Z are for SELinux, which confines nothing here.
		case "nocopy":
			m.NoCopy = true
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			m.Propagation = option
		default:
			return m, invalid("invalid mode: %s", option)
		}
	}
	return m, nil
}

// parseMount reads the comma-separated fields of --mount.
func parseMount(v string) (container.Mount, error) {
	m := container.Mount{Type: container.MountVolume}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return m, invalid("invalid argument %q for \"--mount\" flag: %v", v, err)
	}
	for _, field := range fields {
		key, value, valued := strings.Cut(field, "=")
		switch strings.ToLower(key) {
		case "type":
			m.Type = strings.ToLower(value)
		case "source", "src":
			m.Source = value
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			m.ReadOnly = !valued || value == "true" || value == "1"
		case "bind-propagation":
			m.Propagation = value
		case "volume-nocopy":
			m.NoCopy = !valued || value == "true" || value == "1"
		case "tmpfs-size":
			m.Options = append(m.Options, "size="+value)
		case "tmpfs-mode":
			m.Options = append(m.Options, "mode="+value)
		case "bind-create-src":
			m.CreateSource = !valued || value == "true" || value == "1"
		case "consistency", "bind-nonrecursive", "bind-recursive", "volume-driver", "volume-label", "volume-opt":
		default:
			return m, invalid("invalid argument %q for \"--mount\" flag: unknown option '%s' in '%s'", v, key, field)
		}
	}
	switch m.Type {
	case container.MountBind:
		if m.Source == "" {
			return m, invalid("invalid argument %q for \"--mount\" flag: source is required", v)
		}
		if m.Source, err = filepath.Abs(m.Source); err != nil {
			return m, err
		}
	case container.MountVolume:
		m.Anonymous = m.Source == ""
	case container.MountTmpfs:
		if m.Source != "" {
			return m, invalid("invalid argument %q for \"--mount\" flag: tmpfs mounts have no source", v)
		}
	default:
		return m, invalid("invalid argument %q for \"--mount\" flag: mount type %s is not bind, volume or tmpfs", v, m.Type)
	}
	if m.Target == "" {
		return m, invalid("invalid argument %q for \"--mount\" flag: target is required", v)
	}
	return m, nil
}
