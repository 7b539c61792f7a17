package store

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// refName is a parsed name of a ref. Its file is refs/<dir>/<leaf>.
//
// dir is host and repository as they are written; their grammar allows no
// empty component, no "." or "..", and none that begins with ':' or '@'. leaf
// is ":<tag>" or "@<digest>", so that no leaf can be the directory of another
// repository ("a/b:c" beside "a/b/c:latest"). A name and its path are the same
// characters, which makes the mapping one to one.
type refName struct {
	dir  string // "docker.io/library/busybox"; "" for an image that has no name
	leaf string // ":latest" or "@sha256:…"
}

// Limits of a file name, and of a tag by distribution-spec, "Pulling manifests".
const (
	maxFileName = 255
	maxTag      = 128
)

// parseName takes the name of a ref apart. It wants the whole name: host,
// repository and tag or digest; what a user may leave out is the caller's to
// fill in. An invalid name is an [errdefs.ErrInvalidArgument].
func parseName(name string) (refName, error) {
	n, why := splitName(name)
	if why != "" {
		return refName{}, fmt.Errorf("parse name %.300q: %s: %w", name, why, errdefs.ErrInvalidArgument)
	}
	return n, nil
}

func splitName(name string) (n refName, why string) {
	if repo, d, ok := strings.Cut(name, "@"); ok {
		n = refName{repo, "@" + d}
		if _, _, err := splitDigest(digest.Digest(d)); err != nil {
			return n, "what follows @ is not a digest"
		}
		if repo == "" {
			return n, ""
		}
	} else {
		i := strings.LastIndexByte(name, ':')
		if i < strings.LastIndexByte(name, '/') || i < 0 {
			return n, "neither a tag nor a digest"
		}
		n = refName{name[:i], name[i:]}
		if !validTag(n.leaf[1:]) {
			return n, "invalid tag"
		}
	}
	host, repo, ok := strings.Cut(n.dir, "/")
	if !ok {
		return n, "no host or no repository"
	}
	if !validHost(host) {
		return n, "invalid host"
	}
	if !validRepo(repo) {
		return n, "invalid repository"
	}
	return n, ""
}

func (n refName) String() string { return n.dir + n.leaf }

// hidden reports whether the name belongs to a namespace that only a
// [Store.Registry] shows.
func (n refName) hidden() bool { return strings.HasPrefix(n.dir, "_") }

// The grammar is that of github.com/distribution/reference, and for the host
// also a namespace of ours, "_served". It is written out because that
// module's regular expressions cost more than reading the ref.

// validRepo: path components, each [a-z0-9]+ joined by one of ".", "_", "__"
// or any number of "-".
func validRepo(repo string) bool {
	for c := range strings.SplitSeq(repo, "/") {
		if !validComponent(c) {
			return false
		}
	}
	return true
}

func validComponent(c string) bool {
	if c == "" || len(c) > maxFileName || !isLowerAlnum(c[0]) || !isLowerAlnum(c[len(c)-1]) {
		return false
	}
	for i := 0; i < len(c); {
		j := i
		for j < len(c) && !isLowerAlnum(c[j]) {
			j++
		}
		switch sep := c[i:j]; {
		case sep == "" || sep == "." || sep == "_" || sep == "__":
		case strings.Trim(sep, "-") == "":
		default:
			return false
		}
		i = j + 1
	}
	return true
}

func validHost(host string) bool {
	if len(host) > maxFileName {
		return false
	}
	if namespace, ok := strings.CutPrefix(host, "_"); ok {
		return validComponent(namespace)
	}
	if rest, ok := strings.CutPrefix(host, "["); ok {
		address, port, ok := strings.Cut(rest, "]")
		if !ok || address == "" || strings.Trim(address, "0123456789abcdefABCDEF:") != "" {
			return false
		}
		return port == "" || port[0] == ':' && validPort(port[1:])
	}
	domain, port, ok := strings.Cut(host, ":")
	if ok && !validPort(port) {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) {
			return false
		}
		for i := range len(label) {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func validPort(port string) bool {
	return port != "" && strings.Trim(port, "0123456789") == ""
}

// validTag: [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}.
func validTag(tag string) bool {
	if tag == "" || len(tag) > maxTag || tag[0] == '.' || tag[0] == '-' {
		return false
	}
	for i := range len(tag) {
		if c := tag[i]; !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }

func isAlnum(c byte) bool { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }
