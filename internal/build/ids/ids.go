// Package ids names builds and failed steps.
package ids

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// New returns an id that is short enough to be typed: 60 random bits, in
// characters of a-z2-7.
func New() string { return strings.ToLower(rand.Text()[:12]) }

// Find returns the one of all that is called id, or else the only one whose id
// begins with it; nothing is called "". what is what people call them. Errors are
// [errdefs.ErrNotFound], and [errdefs.ErrInvalidArgument] for more than one.
func Find[T any](all []T, id, what string, idOf func(T) string) (T, error) {
	var none T
	var found []T
	for _, one := range all {
		if idOf(one) == id {
			return one, nil
		}
		if id != "" && strings.HasPrefix(idOf(one), id) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 0:
		return none, fmt.Errorf("no such %s: %s: %w", what, id, errdefs.ErrNotFound)
	case 1:
		return found[0], nil
	}
	return none, fmt.Errorf("find %s %s: %d begin so: %w", what, id, len(found), errdefs.ErrInvalidArgument)
}
