package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/term"
)

// maxSecret is the size in bytes that BuildKit allows a secret.
const maxSecret = 500 << 10

type lookup func(name string) (string, bool)

// buildArgs reads --build-arg. A name without a value takes that of the
// environment, and is left out if there is none. SOURCE_DATE_EPOCH of the
// environment counts without being named.
func buildArgs(values []string, env lookup) map[string]string {
	out := map[string]string{}
	if epoch, ok := env("SOURCE_DATE_EPOCH"); ok {
		out["SOURCE_DATE_EPOCH"] = epoch
	}
	for _, v := range values {
		name, value, found := strings.Cut(v, "=")
		if !found {
			if value, found = env(name); !found {
				continue
			}
		}
		out[name] = value
	}
	return out
}

// secrets reads --secret: id=ID with src=FILE or env=NAME. Without either, the
// variable called ID counts, and else the file.
func secrets(values []string, env lookup) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, v := range values {
		fields, err := commaPairs("secret", v)
		if err != nil {
			return nil, err
		}
		id := fields["id"]
		if id == "" {
			return nil, badValue("secret", v, "id is required")
		}
		file, name := fields["src"], fields["env"]
		if file == "" {
			file = fields["source"]
		}
		switch kind := fields["type"]; {
		case kind != "" && kind != "file" && kind != "env":
			return nil, badValue("secret", v, "type is file or env")
		case kind == "env" && name == "" && file != "":
			name, file = file, "" // docker buildx: src names the variable
		case kind == "env" && name == "":
			name = id
		case file == "" && name == "":
			if _, ok := env(id); ok && kind != "file" {
				name = id
			} else {
				file = id
			}
		}
		if out[id], err = secret(file, name, env); err != nil {
			return nil, fmt.Errorf("secret %s: %w", id, err)
		}
	}
	return out, nil
}

func secret(file, name string, env lookup) ([]byte, error) {
	if name != "" {
		value, ok := env(name)
		if !ok {
			return nil, fmt.Errorf("environment variable %s: %w", name, errdefs.ErrNotFound)
		}
		return []byte(value), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s is over %d KiB: %w", file, maxSecret>>10, errdefs.ErrInvalidArgument)
	}
	return data, err
}

// agents reads --ssh: "default" is the agent of the environment, ID=SOCKET
// another one, ID=KEY,KEY an agent that has the keys in these files.
func agents(values []string, env lookup) (sockets map[string]string, keys map[string][]string, err error) {
	sockets, keys = map[string]string{}, map[string][]string{}
	for _, v := range values {
		id, list, _ := strings.Cut(v, "=")
		if list == "" {
			list, _ = env("SSH_AUTH_SOCK")
		}
		if list == "" {
			return nil, nil, fmt.Errorf("ssh agent %s: SSH_AUTH_SOCK is not set: %w", id, errdefs.ErrNotFound)
		}
		files := strings.Split(list, ",")
		for _, file := range files {
			info, err := os.Stat(file)
			switch {
			case err != nil:
				return nil, nil, fmt.Errorf("ssh agent %s: %w", id, err)
			case info.Mode()&os.ModeSocket == 0:
				keys[id] = append(keys[id], file)
			case len(files) > 1:
				return nil, nil, badValue("ssh", v, "a socket stands alone")
			default:
				sockets[id] = file
			}
		}
	}
	return sockets, keys, nil
}

// isTerminal tells whether f is one.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
