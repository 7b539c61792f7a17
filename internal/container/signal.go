package container

import (
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Real-time signals are numbered from here by the C library (signal(7)).
const (
	rtmin unix.Signal = 34
	rtmax unix.Signal = 64
)

// ParseSignal reads a signal's number or name, with or without "SIG", in any
// case, "RTMIN+3" too. What is none is an [errdefs.ErrInvalidArgument].
func ParseSignal(s string) (unix.Signal, error) {
	invalid := because(errdefs.ErrInvalidArgument, "invalid signal: %s", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || unix.Signal(n) > rtmax {
			return 0, invalid
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for _, base := range []struct {
		name string
		sig  unix.Signal
	}{{"RTMIN", rtmin}, {"RTMAX", rtmax}} {
		rest, found := strings.CutPrefix(name, base.name)
		if !found {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				return 0, invalid
			}
		}
		if sig := base.sig + unix.Signal(n); sig >= rtmin && sig <= rtmax {
			return sig, nil
		}
	}
	return 0, invalid
}
