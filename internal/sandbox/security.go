package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// SecurityOptions change the default profile.
type SecurityOptions struct {
	// CapAdd and CapDrop change the capabilities: names with or without the
	// prefix "CAP_", in any case; "ALL" is all of them.
	CapAdd, CapDrop []string

	// Privileged gives every capability and every device, and takes seccomp,
	// masked and read-only paths away.
	Privileged bool

	NoNewPrivileges bool

	// Seccomp is the JSON of a profile in Docker's form, Unconfined, or empty
	// for the default one.
	Seccomp string

	// Foreign lets programs for the processor's other instruction sets run
	// under the default profile: 32-bit ones on a 64-bit machine.
	Foreign bool

	// UnmaskPaths leaves /proc and /sys as they are (systempaths=unconfined).
	UnmaskPaths bool
}

// Unconfined is the seccomp profile that allows everything.
const Unconfined = "unconfined"

// defaultCapabilities are Docker's fourteen.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths and readonlyPaths are those of moby and, of each, what a
// published vulnerability was about (docs/adr/0003-sandbox.md).
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// secure sets seccomp, masked and read-only paths. It comes last: which
// system calls the default profile allows depends on the capabilities.
func secure(spec *specs.Spec, o SecurityOptions) error {
	if o.Privileged {
		return nil
	}
	if !o.UnmaskPaths {
		spec.Linux.MaskedPaths = append(slices.Clone(maskedPaths), thermalPaths()...)
		spec.Linux.ReadonlyPaths = slices.Clone(readonlyPaths)
		if !cgroups.IsCgroup2UnifiedMode() {
			// The controllers of version 1 are mounted read-only on a tmpfs,
			// which libcontainer leaves writable.
			spec.Linux.ReadonlyPaths = append(spec.Linux.ReadonlyPaths, "/sys/fs/cgroup")
		}
	}
	var err error
	switch o.Seccomp {
	case Unconfined:
	case "":
		spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec)
		if err == nil && !o.Foreign && len(spec.Linux.Seccomp.Architectures) > 1 {
			// Docker's profile admits the 32-bit system calls, too, and with
			// them socketcall(2), whose arguments a filter can't see: all
			// that is said about socket(2) is void there (CVE-2026-31431).
			// It is also what takes three quarters of the filter's making,
			// 8 of 10 ms. The first architecture is the machine's own.
			spec.Linux.Seccomp.Architectures = spec.Linux.Seccomp.Architectures[:1]
		}
	default:
		spec.Linux.Seccomp, err = seccomp.LoadProfile(o.Seccomp, spec)
		if err != nil {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	if err != nil {
		return fmt.Errorf("load seccomp profile: %w", err)
	}
	return nil
}

// thermalPaths are the counters through which a sandbox could watch what the
// machine's other processes compute (GHSA-6fw5-f8r9-fgfm).
func thermalPaths() []string {
	paths, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	if err != nil {
		panic("sandbox: bad pattern: " + err.Error())
	}
	return paths
}

// capabilities are what o leaves of the default ones.
//
// The inheritable and the ambient set stay empty, so that a process that
// changes its user, and a file with inheritable bits, get nothing by it
// (CVE-2022-24769).
func capabilities(o SecurityOptions) (*specs.LinuxCapabilities, error) {
	known := knownCapabilities()
	set := map[string]bool{}
	for _, c := range defaultCapabilities {
		set[c] = true
	}
	if o.Privileged {
		o.CapAdd, o.CapDrop = []string{"ALL"}, nil
	}
	add, err := capabilityNames(o.CapAdd, known)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames(o.CapDrop, known)
	if err != nil {
		return nil, err
	}
	// As in Docker, "ALL" comes before single names of the other list.
	if slices.Contains(add, "ALL") {
		for _, c := range known {
			set[c] = true
		}
	}
	if slices.Contains(drop, "ALL") {
		clear(set)
		for _, c := range add {
			set[c] = c != "ALL"
		}
	} else {
		for _, c := range add {
			set[c] = true
		}
		for _, c := range drop {
			delete(set, c)
		}
	}
	var names []string
	for _, c := range known {
		if set[c] {
			names = append(names, c)
		}
	}
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}, nil
}

// knownCapabilities are those that this kernel knows and this process may
// give: a nested one has fewer.
func knownCapabilities() []string {
	last, err := capability.LastCap()
	if err != nil {
		last = capability.CAP_CHECKPOINT_RESTORE
	}
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	var names []string
	for _, c := range capability.ListKnown() {
		if c > last || err == nil && !own.Get(capability.BOUNDING, c) {
			continue
		}
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	slices.Sort(names)
	return names
}

func capabilityNames(given, known []string) ([]string, error) {
	var names []string
	for _, g := range given {
		name := strings.ToUpper(g)
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if name != "ALL" && !slices.Contains(known, name) && !everCapability(name) {
			return nil, because(errdefs.ErrInvalidArgument, "capability %q is unknown", g)
		}
		names = append(names, name)
	}
	return names, nil
}

func everCapability(name string) bool {
	for _, c := range capability.ListKnown() {
		if name == "CAP_"+strings.ToUpper(c.String()) {
			return true
		}
	}
	return false
}

// newResources adds the device rules to the limits: nothing but the devices
// that every sandbox has, and those of o.
func newResources(o SpecOptions) *specs.LinuxResources {
	r := specs.LinuxResources{}
	if o.Resources != nil {
		r = *o.Resources
	}
	if o.Security.Privileged {
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return &r
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range o.Devices {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: "rwm"})
	}
	r.Devices = append(rules, r.Devices...)
	return &r
}
