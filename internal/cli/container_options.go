package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/network"
)

// containerFlags are those that `run` and `create` share.
type containerFlags struct {
	name, platform, pull, cidfile string
	quiet                         bool
	attach                        []string
	tty, interactive, init        bool

	entrypoint, workdir, user string
	env, envFile, groups      []string

	hostname, domainname, network, pid, ipc, uts, cgroupns string
	publish, expose, dns, dnsSearch, dnsOption, addHost    []string
	publishAll                                             bool

	volumes, mounts, tmpfs []string
	readOnly               bool
	shmSize                string

	memory, memorySwap, memoryReservation, cpus, cpusetCpus, cpusetMems, cgroupParent string
	cpuShares, cpuPeriod, cpuQuota, pidsLimit                                         int64
	oomScoreAdj                                                                       int
	oomKillDisable                                                                    bool
	ulimits                                                                           []string

	capAdd, capDrop, securityOpt, devices, sysctls []string
	privileged                                     bool

	rm                             bool
	restart, stopSignal, logDriver string
	stopTimeout                    int
	labels, labelFile, logOpts     []string
	ignored                        ignoredFlags
}

// ignoredFlags are Docker's flags that make no difference here.
type ignoredFlags struct {
	detachKeys, runtime  string
	disableContentTrust  bool
	annotations, aliases []string
}

func (f *containerFlags) add(flags *pflag.FlagSet) {
	flags.SetInterspersed(false)
	flags.Bool("help", false, "Print usage") // -h is the hostname
	flags.StringVar(&f.name, "name", "", "Assign a name to the container")
	flags.StringVar(&f.platform, "platform", "", "Set platform if server is multi-platform capable")
	flags.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	flags.StringVar(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	listVarP(flags, &f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	flags.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")

	flags.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	flags.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	listVarP(flags, &f.env, "env", "e", "Set environment variables")
	listVar(flags, &f.envFile, "env-file", "Read in a file of environment variables")
	listVar(flags, &f.groups, "group-add", "Add additional groups to join")
	f.addNetwork(flags)
	f.addResources(flags)

	listVarP(flags, &f.volumes, "volume", "v", "Bind mount a volume")
	listVar(flags, &f.mounts, "mount", "Attach a filesystem mount to the container")
	listVar(flags, &f.tmpfs, "tmpfs", "Mount a tmpfs directory")
	flags.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")

	listVar(flags, &f.capAdd, "cap-add", "Add Linux capabilities")
	listVar(flags, &f.capDrop, "cap-drop", "Drop Linux capabilities")
	listVar(flags, &f.securityOpt, "security-opt", "Security Options")
	listVar(flags, &f.devices, "device", "Add a host device to the container")
	listVar(flags, &f.sysctls, "sysctl", "Sysctl options")
	flags.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")

	flags.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	flags.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	flags.IntVar(&f.stopTimeout, "stop-timeout", -1, "Timeout (in seconds) to stop a container")
	flags.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	listVar(flags, &f.logOpts, "log-opt", "Log driver options")
	listVarP(flags, &f.labels, "label", "l", "Set meta data on a container")
	listVar(flags, &f.labelFile, "label-file", "Read in a line delimited file of labels")
	f.addIgnored(flags)
}

func (f *containerFlags) addNetwork(flags *pflag.FlagSet) {
	flags.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	flags.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	flags.StringVar(&f.network, "network", "", "Connect a container to a network")
	flags.StringVar(&f.network, "net", "", "Connect a container to a network")
	_ = flags.MarkHidden("net")
	flags.StringVar(&f.pid, "pid", "", "PID namespace to use")
	flags.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	flags.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	flags.StringVar(&f.cgroupns, "cgroupns", "", `Cgroup namespace to use ("host", "private")`)
	listVarP(flags, &f.publish, "publish", "p", "Publish a container's port(s) to the host")
	flags.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	listVar(flags, &f.expose, "expose", "Expose a port or a range of ports")
	listVar(flags, &f.dns, "dns", "Set custom DNS servers")
	listVar(flags, &f.dnsSearch, "dns-search", "Set custom DNS search domains")
	listVar(flags, &f.dnsOption, "dns-option", "Set DNS options")
	listVar(flags, &f.addHost, "add-host", "Add a custom host-to-IP mapping (host:ip)")
}

func (f *containerFlags) addResources(flags *pflag.FlagSet) {
	flags.StringVarP(&f.memory, "memory", "m", "", "Memory limit")
	flags.StringVar(&f.memorySwap, "memory-swap", "", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	flags.StringVar(&f.memoryReservation, "memory-reservation", "", "Memory soft limit")
	flags.StringVar(&f.cpus, "cpus", "", "Number of CPUs")
	flags.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	flags.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	flags.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	flags.StringVar(&f.shmSize, "shm-size", "", "Size of /dev/shm")
	flags.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	flags.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	listVar(flags, &f.ulimits, "ulimit", "Ulimit options")
	flags.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
}

func (f *containerFlags) addIgnored(flags *pflag.FlagSet) {
	flags.StringVar(&f.ignored.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container (ignored)")
	flags.StringVar(&f.ignored.runtime, "runtime", "", "Runtime to use for this container")
	flags.BoolVar(&f.ignored.disableContentTrust, "disable-content-trust", true, "Skip image verification")
	listVar(flags, &f.ignored.annotations, "annotation", "Add an annotation to the container (ignored)")
	listVar(flags, &f.ignored.aliases, "network-alias", "Add network-scoped alias for the container (ignored)")
	_ = flags.MarkHidden("disable-content-trust")
}

// options translates the flags and the arguments IMAGE [COMMAND] [ARG...].
func (f *containerFlags) options(flags *pflag.FlagSet, args []string) (o container.CreateOptions, err error) {
	o = container.CreateOptions{Name: f.name, Image: args[0], Platform: f.platform, Pull: container.PullPolicy(f.pull)}
	switch o.Pull {
	case container.PullAlways, container.PullMissing, container.PullNever:
	default:
		return o, invalid(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, f.pull)
	}
	for _, step := range []func(*container.Settings) error{
		func(s *container.Settings) error { return f.process(flags, args[1:], &s.Process) },
		f.networking, f.storage, f.resources, f.security,
		func(s *container.Settings) error { return f.life(flags, s) },
	} {
		if err := step(&o.Settings); err != nil {
			return o, err
		}
	}
	return o, nil
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func (f *containerFlags) process(flags *pflag.FlagSet, cmd []string, p *container.Process) (err error) {
	p.Cmd, p.Dir, p.User, p.Groups = cmd, f.workdir, f.user, f.groups
	p.Terminal, p.Stdin, p.Init = f.tty, f.interactive, f.init
	if flags.Changed("entrypoint") {
		p.Entrypoint = []string{f.entrypoint}
	}
	p.Env, err = environment(f.envFile, f.env)
	return err
}

// environment reads the files and then takes the values of env. A name alone
// is a variable of this process, if it has it.
func environment(files, env []string) ([]string, error) {
	var all []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read env file: %w", err)
		}
		for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
			line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			name, _, _ := strings.Cut(line, "=")
			if name == "" || strings.ContainsAny(name, " \t") {
				return nil, invalid("env file %s: poorly formatted environment: variable '%s' contains whitespaces or has no name", file, name)
			}
			all = append(all, line)
		}
	}
	all = append(all, env...)
	var known []string
	for _, e := range all {
		name, _, valued := strings.Cut(e, "=")
		if name == "" {
			return nil, invalid("invalid environment variable: %s", e)
		}
		if valued {
			known = append(known, e)
		} else if value, found := os.LookupEnv(name); found {
			known = append(known, name+"="+value)
		} else {
			known = append(known, name)
		}
	}
	return known, nil
}

func (f *containerFlags) networking(s *container.Settings) error {
	n := &s.Network
	n.Mode, n.Hostname, n.Domainname = f.network, f.hostname, f.domainname
	n.PublishAll, n.Expose = f.publishAll, f.expose
	n.DNS, n.DNSSearch, n.DNSOptions, n.ExtraHosts = f.dns, f.dnsSearch, f.dnsOption, f.addHost
	n.PID, n.IPC, n.UTS, n.Cgroup = f.pid, f.ipc, f.uts, f.cgroupns
	for _, p := range f.publish {
		ports, err := network.ParsePort(p)
		if err != nil {
			return err
		}
		n.Publish = append(n.Publish, ports...)
	}
	return nil
}

func (f *containerFlags) resources(s *container.Settings) (err error) {
	r := &s.Resources
	r.CPUShares, r.CPUPeriod, r.CPUQuota = f.cpuShares, f.cpuPeriod, f.cpuQuota
	r.CpusetCpus, r.CpusetMems, r.PidsLimit = f.cpusetCpus, f.cpusetMems, f.pidsLimit
	r.OOMScoreAdj, r.OOMKillDisable, r.CgroupParent = f.oomScoreAdj, f.oomKillDisable, f.cgroupParent
	for _, size := range []struct {
		flag, value string
		to          *int64
	}{
		{"memory", f.memory, &r.Memory}, {"memory-reservation", f.memoryReservation, &r.MemoryReservation},
		{"memory-swap", f.memorySwap, &r.MemorySwap}, {"shm-size", f.shmSize, &r.ShmSize},
	} {
		if size.value == "" {
			continue
		}
		if size.flag == "memory-swap" && size.value == "-1" {
			*size.to = -1
			continue
		}
		if *size.to, err = units.RAMInBytes(size.value); err != nil {
			return invalid("invalid argument %q for \"--%s\" flag: %v", size.value, size.flag, err)
		}
	}
	if f.cpus != "" {
		cpus, err := strconv.ParseFloat(f.cpus, 64)
		if err != nil || cpus < 0 {
			return invalid("invalid argument %q for \"--cpus\" flag: not a number of CPUs", f.cpus)
		}
		r.NanoCPUs = int64(cpus * 1e9)
	}
	for _, u := range f.ulimits {
		parsed, err := units.ParseUlimit(u)
		if err != nil {
			return invalid("invalid argument %q for \"--ulimit\" flag: %v", u, err)
		}
		r.Ulimits = append(r.Ulimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(parsed.Name), Soft: uint64(parsed.Soft), Hard: uint64(parsed.Hard),
		})
	}
	return nil
}

func (f *containerFlags) security(s *container.Settings) error {
	sec := &s.Security
	sec.CapAdd, sec.CapDrop = splitList(f.capAdd), splitList(f.capDrop)
	sec.Privileged, sec.ReadOnly = f.privileged, f.readOnly
	for _, opt := range f.securityOpt {
		key, value, found := strings.Cut(opt, "=")
		if !found {
			key, value, _ = strings.Cut(opt, ":")
		}
		switch key {
		case "no-new-privileges":
			sec.NoNewPrivileges = value == "" || value == "true"
		case "seccomp":
			if value == "unconfined" || value == "builtin" {
				sec.Seccomp = value
				continue
			}
			profile, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			sec.Seccomp = string(profile)
		case "systempaths":
			if value != "unconfined" {
				return invalid("invalid --security-opt: %q", opt)
			}
			sec.UnmaskPaths = true
		case "apparmor", "label":
			// Neither module confines shale's containers.
		default:
			return invalid("invalid --security-opt: %q", opt)
		}
	}
	for _, d := range f.devices {
		parts := strings.SplitN(d, ":", 3)
		device := container.Device{Source: parts[0], Target: parts[0], Access: "rwm"}
		if len(parts) == 2 && strings.Trim(parts[1], "rwm") == "" {
			device.Access = parts[1]
		} else if len(parts) > 1 {
			device.Target = parts[1]
		}
		if len(parts) == 3 {
			device.Access = parts[2]
		}
		sec.Devices = append(sec.Devices, device)
	}
	for _, v := range f.sysctls {
		key, value, found := strings.Cut(v, "=")
		if !found {
			return invalid("invalid argument %q for \"--sysctl\" flag", v)
		}
		if sec.Sysctls == nil {
			sec.Sysctls = map[string]string{}
		}
		sec.Sysctls[key] = value
	}
	return nil
}

// splitList takes "A,B" as two values, as Docker's lists of names do.
func splitList(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Split(v, ",")...)
	}
	return all
}

func (f *containerFlags) life(flags *pflag.FlagSet, s *container.Settings) error {
	l := &s.Life
	l.AutoRemove, l.StopSignal, l.LogDriver = f.rm, f.stopSignal, f.logDriver
	if flags.Changed("stop-timeout") {
		l.StopTimeout = &f.stopTimeout
	}
	name, count, counted := strings.Cut(f.restart, ":")
	l.Restart.Name = name
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			return invalid("invalid restart policy format: maximum retry count must be an integer")
		}
		l.Restart.MaximumRetryCount = n
	}
	if name == "no" {
		l.Restart.Name = ""
	}
	var err error
	if s.Labels, err = labels(f.labelFile, f.labels); err != nil {
		return err
	}
	for _, opt := range f.logOpts {
		key, value, found := strings.Cut(opt, "=")
		if !found {
			return invalid("invalid logging option %q", opt)
		}
		if l.LogOpts == nil {
			l.LogOpts = map[string]string{}
		}
		l.LogOpts[key] = value
	}
	return nil
}

func labels(files, values []string) (map[string]string, error) {
	fromFiles, err := environment(files, nil)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, l := range append(fromFiles, values...) {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, invalid("invalid label %q", l)
		}
		all[key] = value
	}
	return all, nil
}

// writeCIDFile keeps the id of a new container for scripts.
func writeCIDFile(file, id string) error {
	if file == "" {
		return nil
	}
	if err := os.WriteFile(file, []byte(id), 0o644); err != nil {
		return fmt.Errorf("write the container ID file: %w", err)
	}
	return nil
}

// checkCIDFile is Docker's check before anything is made.
func checkCIDFile(file string) error {
	if file == "" {
		return nil
	}
	if _, err := os.Stat(file); err == nil {
		return fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s: %w", file, errdefs.ErrAlreadyExists)
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return fmt.Errorf("write the container ID file: %w", err)
	}
	return nil
}
