package build

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKey bounds a file with a private key, in bytes, as BuildKit does.
const maxKey = 100 << 10

// agents are the SSH agents of a build: those that the user has, and those that
// hold the keys that he names. The latter live as long as the build.
type agents struct {
	sockets   map[string]string // by id
	dir       string
	listeners []net.Listener
}

// openAgents starts an agent for each id in keys. The caller closes the result.
func openAgents(sockets map[string]string, keys map[string][]string) (*agents, error) {
	a := &agents{sockets: sockets}
	if len(keys) == 0 {
		return a, nil
	}
	a.sockets = maps.Clone(sockets)
	if a.sockets == nil {
		a.sockets = map[string]string{}
	}
	var err error
	if a.dir, err = os.MkdirTemp("", "shale-agent-"); err != nil { // the name of a socket is short
		return nil, err
	}
	for n, id := range sorted(keys) {
		if err := a.serve(id, filepath.Join(a.dir, fmt.Sprint(n)), keys[id]); err != nil {
			return nil, errors.Join(fmt.Errorf("ssh agent %s: %w", id, err), a.Close())
		}
	}
	return a, nil
}

// serve starts an agent with the keys in files, at socket.
func (a *agents) serve(id, socket string, files []string) error {
	ring := agent.NewKeyring()
	for _, file := range files {
		key, err := readKey(file)
		if err != nil {
			return err
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return fmt.Errorf("key %s: %w", file, err)
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	a.listeners = append(a.listeners, l)
	a.sockets[id] = socket
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(signer{ring}, conn) // until whoever asks has gone
			}()
		}
	}()
	return nil
}

func readKey(file string) (any, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKey {
		return nil, fmt.Errorf("key %s has more than %d bytes: %w", file, maxKey, errdefs.ErrInvalidArgument)
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		return nil, fmt.Errorf("key %s has a passphrase, give it to an agent (ssh-add %s): %w", file, file, errdefs.ErrNotImplemented)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s is no private key: %w", file, errdefs.ErrInvalidArgument)
	}
	return key, nil
}

// Close ends the agents that a has started.
func (a *agents) Close() error {
	var errs []error
	for _, l := range a.listeners {
		errs = append(errs, l.Close())
	}
	if a.dir != "" {
		errs = append(errs, os.RemoveAll(a.dir))
	}
	return errors.Join(errs...)
}

// signer is an agent whose keys can be used, and neither added to nor removed.
type signer struct{ agent.Agent }

func (signer) Add(agent.AddedKey) error   { return errFixed }
func (signer) Remove(ssh.PublicKey) error { return errFixed }
func (signer) RemoveAll() error           { return errFixed }
func (signer) Lock([]byte) error          { return errFixed }
func (signer) Unlock([]byte) error        { return errFixed }

var errFixed = errors.New("the keys of a build are what they are")
