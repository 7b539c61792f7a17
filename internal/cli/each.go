package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// several are the errors of a command that went on after the first one. Each
// gets a line of its own.
type several []error

func (s several) Error() string {
	lines := make([]string, len(s))
	for n, err := range s {
		lines[n] = err.Error()
	}
	return strings.Join(lines, "\n")
}

func (s several) Unwrap() []error { return s }

// forEach calls f for every argument: what fails doesn't stop what comes after
// it, but the command fails.
func forEach(args []string, f func(arg string) error) error {
	var errs several
	for _, arg := range args {
		if err := f(arg); err != nil {
			errs = append(errs, err)
		}
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return errs
}

// each is forEach that prints the arguments for which f succeeds, as Docker
// does.
func each(cmd *cobra.Command, args []string, f func(arg string) error) error {
	return forEach(args, func(arg string) error {
		if err := f(arg); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), arg)
		return err
	})
}

// eachAtOnce is each for what takes its time, such as a container that has to
// stop: all arguments at once, up to a limit that is Docker's.
func eachAtOnce(cmd *cobra.Command, args []string, f func(arg string) error) error {
	const most = 50
	slots := make(chan struct{}, most)
	results := make(map[string]chan error)
	for _, arg := range args {
		if results[arg] != nil {
			continue
		}
		done := make(chan error, 1)
		results[arg] = done
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			done <- f(arg)
		}()
	}
	return each(cmd, args, func(arg string) error {
		done := results[arg]
		err := <-done
		done <- err // for an argument that is given twice
		return err
	})
}

// apart returns the errors that are to be reported one by one.
func apart(err error) []error {
	var list several
	if errors.As(err, &list) {
		return list
	}
	return []error{err}
}
