// Package s3test starts a real S3 server for tests: versitygw, which checks
// signatures and digests as AWS does. It is no module of shale's; `make setup`
// puts the program into bin/.
package s3test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/shaleproject/shale/internal/registry/s3"
)

// ErrMissing says that there is no server on this machine.
var ErrMissing = errors.New("no versitygw in PATH or bin/ (make setup)")

// Server is a running server with one bucket, called "cache".
type Server struct {
	URL  string
	Keys s3.Credentials
	Dir  string // where the objects are, as files

	cmd *exec.Cmd
}

// Program is the path of the server, or [ErrMissing].
func Program() (string, error) {
	if program, err := exec.LookPath("versitygw"); err == nil {
		return program, nil
	}
	_, here, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(here), "../../../../bin/versitygw")
	if _, err := os.Stat(program); err != nil {
		return "", ErrMissing
	}
	return program, nil
}

// Start starts a server that keeps its objects below dir. The caller closes it.
func Start(dir string) (*Server, error) {
	program, err := Program()
	if err != nil {
		return nil, err
	}
	s := &Server{Keys: s3.Credentials{KeyID: "k3y-1d-c4n4ry", Secret: "s3cr3t-k3y-c4n4ry"}, Dir: filepath.Join(dir, "objects", "cache")}
	meta := filepath.Join(dir, "meta")
	for _, d := range []string{s.Dir, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	addr, err := unused()
	if err != nil {
		return nil, err
	}
	var log bytes.Buffer
	s.URL = "http://" + addr
	s.cmd = exec.Command(program, "--quiet", "--port", addr, "posix", "--sidecar", meta, filepath.Dir(s.Dir))
	s.cmd.Env = []string{"ROOT_ACCESS_KEY=" + s.Keys.KeyID, "ROOT_SECRET_KEY=" + s.Keys.Secret}
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(s.URL)
		if err == nil {
			resp.Body.Close()
			return s, nil
		}
		if time.Now().After(deadline) {
			s.Close()
			return nil, fmt.Errorf("versitygw does not answer: %w\n%s", err, log.String())
		}
	}
}

// Close ends the server.
func (s *Server) Close() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// unused is an address of the loopback that nobody listens on.
func unused() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
