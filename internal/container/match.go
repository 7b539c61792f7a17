package container

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
)

// matchName is Docker's name filter: a regular expression, found anywhere in
// the name with or without its slash.
func matchName(name, pattern string) (bool, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, fmt.Errorf("invalid filter 'name=%s': %w: %w", pattern, err, errdefs.ErrInvalidArgument)
	}
	return re.MatchString(name) || re.MatchString("/"+name), nil
}
