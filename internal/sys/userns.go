//go:build linux

package sys

import (
	"context"

	"github.com/containerd/errdefs"
)

// UserNamespaceEnv is the environment variable that tells a child of
// [ReexecInUserNamespace] what it is.
const UserNamespaceEnv = "SHALE_USERNS"

// EnterUserNamespace is the first thing that such a child calls, with
// the value of [UserNamespaceEnv], before it starts or opens anything.
func EnterUserNamespace(value string) error { return errdefs.ErrNotImplemented }

// ReexecInUserNamespace runs this program again with args (args[0] is its name), as root of a user namespace.
func ReexecInUserNamespace(ctx context.Context, args []string) (exit int, err error) {
	return 125, errdefs.ErrNotImplemented
}
