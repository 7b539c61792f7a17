package sandbox

import "fmt"

// because makes an error of a class that says only what the format does: the
// class is for whoever branches on it.
func because(class interface{ WithMessage(string) error }, format string, args ...any) error {
	return class.WithMessage(fmt.Sprintf(format, args...))
}
