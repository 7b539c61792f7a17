package container

import (
	"os/exec"

	"golang.org/x/sys/unix"
)

// detach keeps a monitor out of the caller's session: it survives the
// terminal, and Ctrl-C is not for it.
func detach(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, nil
}
