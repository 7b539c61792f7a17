//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// explainUserNamespace says what an errno of clone(2) means.
func explainUserNamespace(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fault{fmt.Errorf("too many or too deep user namespaces (user.max_user_namespaces): %w", err), errdefs.ErrPermissionDenied}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fault{fmt.Errorf("this kernel has no user namespaces: %w", err), errdefs.ErrFailedPrecondition}
	case errors.Is(err, unix.EPERM):
		return fault{fmt.Errorf("user namespaces are forbidden, perhaps by the container or seccomp filter around: %w", err), errdefs.ErrPermissionDenied}
	}
	return classify(err)
}

// userNamespacesForbidden returns an error if a setting of the machine keeps
// the caller from user namespaces, or from doing anything in them.
func userNamespacesForbidden() error {
	setting := func(name string) string {
		data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			return "" // most kernels lack most of these
		}
		return strings.TrimSpace(string(data))
	}
	refuse := func(text string) error {
		return fmt.Errorf("%s: %w", text, errdefs.ErrPermissionDenied)
	}
	if setting("user.max_user_namespaces") == "0" {
		return refuse("user namespaces are switched off (sysctl user.max_user_namespaces=0)")
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if setting("kernel.unprivileged_userns_clone") == "0" { // Debian's kernels
		return refuse("user namespaces are for root only (sysctl kernel.unprivileged_userns_clone=0)")
	}
	if setting("kernel.apparmor_restrict_unprivileged_userns") == "1" { // Ubuntu's, from 23.10
		profile, err := os.ReadFile("/proc/self/attr/apparmor/current")
		if err == nil && strings.TrimSpace(string(profile)) == "unconfined" {
			return refuse("AppArmor keeps programs without a profile from user namespaces: give shale one in /etc/apparmor.d that says \"userns,\", or set sysctl kernel.apparmor_restrict_unprivileged_userns=0")
		}
	}
	return nil
}
