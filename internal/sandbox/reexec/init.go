package reexec

// This file makes the package one of cgo, so that init.c is part of it.

import "C"
