package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// hubKey is the name under which everybody stores the login of Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// Credentials is what config.json or a credential helper holds for a host.
// The zero value is nobody.
type Credentials struct {
	Username, Password string

	// IdentityToken is exchanged for access tokens; it stands in place of
	// the password.
	IdentityToken string

	// RegistryToken is sent to the registry as it is.
	RegistryToken string
}

// dockerConfig is the part of Docker's config.json that is about credentials.
// See https://docs.docker.com/reference/cli/docker/login/.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// configFile is where config.json is.
func (c *Client) configFile() string { return filepath.Join(c.config.DockerConfigDir, "config.json") }

func (c *Client) readConfig() (dockerConfig, error) {
	var config dockerConfig
	if c.config.DockerConfigDir == "" {
		return config, nil
	}
	data, err := os.ReadFile(c.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	} else if err != nil {
		return config, fmt.Errorf("read credentials: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return config, nil
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, fmt.Errorf("read credentials: parse %s: %w: %w", c.configFile(), err, errdefs.ErrInvalidArgument)
	}
	return config, nil
}

// keyOf returns the name under which the credentials of host are stored.
func keyOf(host string) string {
	host = strings.ToLower(host)
	if canonical, err := canonicalHost(host); err == nil && canonical == hubOrigin {
		return hubKey
	}
	return host
}

// sameHost reports whether key, as found in config.json, means the registry
// that key want means. Docker has written names, URLs and URLs with an API
// version over the years.
func sameHost(key, want string) bool {
	if key == want {
		return true
	}
	key = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(key), "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	switch strings.TrimSuffix(path, "/") {
	case "", "v1", "v2":
		return keyOf(host) == want
	}
	return false
}

// Credentials returns what is stored for host. A credential helper that is
// missing or broken is an error, never a reason to look elsewhere.
func (c *Client) Credentials(ctx context.Context, host string) (Credentials, error) {
	config, err := c.readConfig()
	if err != nil {
		return Credentials{}, err
	}
	if helper := config.helperFor(host); helper != "" {
		cred, err := helperGet(ctx, helper, keyOf(host))
		if err != nil || cred != (Credentials{}) {
			return cred, err
		}
	}
	// An entry of the file is for this very host, so it may be used where the
	// helper knows nothing.
	cred, err := config.entry(host)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials of %s: %w: %w", host, err, errdefs.ErrInvalidArgument)
	}
	return cred, nil
}

// helperFor returns the credential helper that keeps the login of host, or "".
func (d dockerConfig) helperFor(host string) string {
	want := keyOf(host)
	if helper, ok := d.CredHelpers[want]; ok {
		return helper
	}
	for _, key := range sortedKeys(d.CredHelpers) {
		if sameHost(key, want) {
			return d.CredHelpers[key]
		}
	}
	return d.CredsStore
}

// entry returns what auths has for host.
func (d dockerConfig) entry(host string) (Credentials, error) {
	want := keyOf(host)
	if a, ok := d.Auths[want]; ok && a != (dockerAuth{}) {
		return a.credentials()
	}
	for _, key := range sortedKeys(d.Auths) {
		if a := d.Auths[key]; sameHost(key, want) && a != (dockerAuth{}) {
			return a.credentials()
		}
	}
	return Credentials{}, nil
}

func (a dockerAuth) credentials() (Credentials, error) {
	cred := Credentials{a.Username, a.Password, a.IdentityToken, a.RegistryToken}
	if a.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return Credentials{}, errors.New("auth is not base64")
		}
		user, password, ok := strings.Cut(string(plain), ":")
		if !ok || user == "" {
			return Credentials{}, errors.New("auth is not of the form user:password")
		}
		cred.Username, cred.Password = user, strings.Trim(password, "\x00")
	}
	return cred, nil
}

// Store keeps cred for host where config.json says credentials are kept. It
// returns the name of the file, or of the helper, that holds them now.
func (c *Client) Store(ctx context.Context, host string, cred Credentials) (where string, err error) {
	config, err := c.readConfig()
	if err != nil {
		return "", err
	}
	key := keyOf(host)
	if helper := config.helperFor(host); helper != "" {
		if err := helperStore(ctx, helper, key, cred); err != nil {
			return "", err
		}
		// Docker lists the host in auths all the same, and takes an old
		// password out of there.
		return helper, c.editAuths(func(auths map[string]json.RawMessage) { auths[key] = json.RawMessage("{}") })
	}
	entry := dockerAuth{IdentityToken: cred.IdentityToken, RegistryToken: cred.RegistryToken}
	if cred.Username != "" {
		entry.Auth = basic(cred.Username, cred.Password)
	}
	data, err := json.Marshal(entry)
	if err != nil {
		return "", err
	}
	return c.configFile(), c.editAuths(func(auths map[string]json.RawMessage) { auths[key] = data })
}

// Erase forgets what is stored for host. It reports whether there was
// something.
func (c *Client) Erase(ctx context.Context, host string) (found bool, err error) {
	config, err := c.readConfig()
	if err != nil {
		return false, err
	}
	key := keyOf(host)
	if helper := config.helperFor(host); helper != "" {
		if found, err = helperErase(ctx, helper, key); err != nil {
			return found, err
		}
	}
	var listed []string
	for name := range config.Auths {
		if sameHost(name, key) {
			listed = append(listed, name)
		}
	}
	if len(listed) == 0 {
		return found, nil
	}
	return true, c.editAuths(func(auths map[string]json.RawMessage) {
		for _, name := range listed {
			delete(auths, name)
		}
	})
}

// editAuths changes the auths of config.json and nothing else in it. The file
// is replaced by rename, readable by its owner alone.
func (c *Client) editAuths(edit func(map[string]json.RawMessage)) error {
	if c.config.DockerConfigDir == "" {
		return fmt.Errorf("write credentials: no configuration directory: %w", errdefs.ErrFailedPrecondition)
	}
	name := c.configFile()
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target // people keep their configuration elsewhere and link to it
	}
	whole := map[string]json.RawMessage{}
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write credentials: %w", err)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := json.Unmarshal(data, &whole); err != nil {
			return fmt.Errorf("write credentials: parse %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
		}
	}
	auths := map[string]json.RawMessage{}
	if raw := whole["auths"]; raw != nil {
		if err := json.Unmarshal(raw, &auths); err != nil {
			return fmt.Errorf("write credentials: parse auths in %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
		}
	}
	if auths == nil {
		auths = map[string]json.RawMessage{}
	}
	edit(auths)
	if whole["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	if data, err = json.MarshalIndent(whole, "", "\t"); err != nil {
		return err
	}
	if err := replaceFile(name, append(data, '\n')); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}

// replaceFile writes data aside and renames it to name, with mode 0600.
func replaceFile(name string, data []byte) (err error) {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".config.json-*") // 0600 under any umask
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
