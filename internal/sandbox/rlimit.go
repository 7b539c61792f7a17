package sandbox

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rlimits names what setrlimit(2) knows on Linux.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// clampRlimits lowers what this process may not raise. Whether it may is a
// matter of CAP_SYS_RESOURCE, which root in a container or a small virtual
// machine often lacks, and then a limit beyond the hard one would end every
// run with EPERM.
func clampRlimits(limits []specs.POSIXRlimit) ([]specs.POSIXRlimit, error) {
	clamped := make([]specs.POSIXRlimit, 0, len(limits))
	for _, l := range limits {
		l.Type = strings.ToUpper(l.Type)
		if !strings.HasPrefix(l.Type, "RLIMIT_") {
			l.Type = "RLIMIT_" + l.Type
		}
		resource, known := rlimits[l.Type]
		if !known {
			return nil, because(errdefs.ErrInvalidArgument, "limit %q is unknown", l.Type)
		}
		if l.Soft > l.Hard {
			return nil, because(errdefs.ErrInvalidArgument, "limit %s: soft %d is above hard %d", l.Type, l.Soft, l.Hard)
		}
		var own unix.Rlimit
		if err := unix.Getrlimit(resource, &own); err != nil {
			return nil, fmt.Errorf("read limit %s: %w", l.Type, err)
		}
		if !hasCapability(unix.CAP_SYS_RESOURCE) {
			l.Hard = min(l.Hard, own.Max)
			l.Soft = min(l.Soft, l.Hard)
		}
		clamped = append(clamped, l)
	}
	return clamped, nil
}

// hasCapability tells whether this process's effective set holds c.
func hasCapability(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}
