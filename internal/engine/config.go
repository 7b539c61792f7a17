package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is everything that the environment, the configuration files and the
// flags before a command say. It is read once; nothing below the engine looks
// at the environment.
type Config struct {
	// Root is the directory of the store.
	Root string

	// DockerConfig is the directory that holds Docker's config.json.
	DockerConfig string

	// Insecure names registries ("host", "host:port" or a CIDR) that may be
	// spoken to over http or with a certificate that nobody vouches for.
	// Loopback addresses need not be named.
	Insecure []string

	// Driver forces a rootfs driver: "erofs" or "overlay". Empty lets the
	// kernel and the user's rights decide.
	Driver string

	// Runtime is the path of an OCI runtime binary. Empty means the one
	// that is linked in.
	Runtime string

	// Platform (os/arch[/variant]) is the one that is meant where none is
	// named. Empty means the machine's.
	Platform string

	// Waiting, if not nil, is told that a request to a registry went wrong
	// and will be tried again after d.
	Waiting func(host string, why error, d time.Duration)

	// Debug asks for logs on standard error.
	Debug bool

	// Rootless says that the user is not the machine's root, though it may
	// be root of a user namespace. Namespaced says that it is.
	Rootless, Namespaced bool

	// NoNamespace is why there is no user namespace for an ordinary user; nil
	// if there is one or nobody has asked.
	NoNamespace error
}

// User is what the process knows of whom it works for.
type User struct {
	// UID is the effective user id as the process sees it.
	UID int

	// Namespaced says that the process is root only of a user namespace of
	// ours (see [sys.ReexecInUserNamespace]).
	Namespaced bool
}

// FromEnvironment makes the configuration from variables, looked up with
// getenv: SHALE_ROOT, SHALE_DRIVER, SHALE_RUNTIME, SHALE_INSECURE_REGISTRIES
// (comma separated), DOCKER_CONFIG, DOCKER_DEFAULT_PLATFORM, XDG_DATA_HOME and
// HOME.
func FromEnvironment(getenv func(string) string, user User) Config {
	c := Config{
		Root:         getenv("SHALE_ROOT"),
		DockerConfig: getenv("DOCKER_CONFIG"),
		Driver:       getenv("SHALE_DRIVER"),
		Runtime:      getenv("SHALE_RUNTIME"),
		Platform:     getenv("DOCKER_DEFAULT_PLATFORM"),
		Rootless:     user.UID != 0 || user.Namespaced,
		Namespaced:   user.Namespaced,
	}
	for name := range strings.SplitSeq(getenv("SHALE_INSECURE_REGISTRIES"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			c.Insecure = append(c.Insecure, name)
		}
	}
	home := getenv("HOME")
	if c.Root == "" {
		c.Root = defaultRoot(getenv("XDG_DATA_HOME"), home, c.Rootless)
	}
	if c.DockerConfig == "" && home != "" {
		c.DockerConfig = filepath.Join(home, ".docker")
	}
	return c
}

// defaultRoot is where the store lies if nobody says otherwise; "" where
// there is no such place.
func defaultRoot(dataHome, home string, rootless bool) string {
	switch {
	case !rootless:
		return "/var/lib/shale"
	case dataHome != "":
		return filepath.Join(dataHome, "shale")
	case home != "":
		return filepath.Join(home, ".local", "share", "shale")
	}
	return ""
}

// NamespaceRecord is the file that names the user namespace in which an
// ordinary user's processes work on this store; "" if there is no store.
func (c *Config) NamespaceRecord() string {
	root, err := c.root()
	if err != nil {
		return ""
	}
	return filepath.Join(root, "userns")
}

// root is Root as an absolute path.
func (c *Config) root() (string, error) {
	if c.Root == "" {
		return "", errors.New("find the store: neither --root, SHALE_ROOT nor HOME is set")
	}
	root, err := filepath.Abs(c.Root)
	if err != nil {
		return "", err
	}
	if link, err := filepath.EvalSymlinks(root); err == nil {
		root = link
	} else if !os.IsNotExist(err) {
		return "", err
	}
	return root, nil
}
