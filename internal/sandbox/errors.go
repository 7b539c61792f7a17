package sandbox

import (
	"errors"
	"fmt"
	"strings"
)

// What a shell and Docker exit with when a command can't be executed
// (POSIX XCU 2.8.2).
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

var (
	// ErrNotFoundCommand is the class of a command that isn't there.
	ErrNotFoundCommand = errors.New("command not found")

	// ErrNotExecutable is the class of one that can't be executed: a
	// directory, or a file without the permission.
	ErrNotExecutable = errors.New("command not executable")
)

// CommandError says why a command could not be started.
type CommandError struct {
	Command string
	// Code is 126 or 127.
	Code  int
	cause string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("execute %q: %s", e.Command, e.cause)
}

// Is tells the two classes.
func (e *CommandError) Is(target error) bool {
	return target == ErrNotFoundCommand && e.Code == codeNotFound ||
		target == ErrNotExecutable && e.Code == codeNotExecutable
}

// commandError finds out whether a runtime's message is about the command.
//
// The message comes from another process (libcontainer's init, or a runtime
// binary) as text, so text is all there is. Only what follows the quoted name
// of the command counts: a missing mount source is no missing command.
func commandError(command string, message string) error {
	_, cause, found := strings.Cut(message, fmt.Sprintf("exec: %q: ", command))
	if !found {
		// crun says: executable file `x` not found in $PATH: No such file or directory
		_, cause, found = strings.Cut(message, "executable file `"+command+"` ")
	}
	if !found {
		// A working directory counts as the command's, as in Docker.
		if _, cause, found = strings.Cut(message, "chdir to cwd ("); found {
			cause = "chdir to " + strings.Replace(cause, ") set in config.json failed", "", 1)
		}
	}
	if !found {
		return nil
	}
	cause, _, _ = strings.Cut(cause, "\n")
	lower := strings.ToLower(cause)
	switch {
	case strings.Contains(lower, "permission denied"), strings.Contains(lower, "is a directory"):
		return &CommandError{Command: command, Code: codeNotExecutable, cause: cause}
	case strings.Contains(lower, "not found"), strings.Contains(lower, "no such file or directory"),
		strings.Contains(lower, "not a directory"):
		return &CommandError{Command: command, Code: codeNotFound, cause: cause}
	}
	return nil
}

// NewCommandError is the error of a command that another process tried.
func NewCommandError(command string, code int, cause string) *CommandError {
	return &CommandError{Command: command, Code: code, cause: cause}
}

// Cause is what the runtime said.
func (e *CommandError) Cause() string { return e.cause }
