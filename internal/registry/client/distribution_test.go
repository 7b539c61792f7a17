package client

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// startDistribution runs Debian's docker-registry with its data in a temporary
// directory, and returns its address.
func startDistribution(t *testing.T, auth string) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs docker-registry (Debian package docker-registry)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n%s", dir, addr, auth)
	name := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", name)
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			return addr
		}
		time.Sleep(20 * time.Millisecond) // the program has no way to say that it is up
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

func TestImageGoesToDistributionAndBack(t *testing.T) {
	addr := startDistribution(t, "")
	c := New(Config{})
	r, err := c.Registry(addr)
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, r)
}

func TestDistributionAsksForAPassword(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startDistribution(t, "auth:\n  htpasswd:\n    realm: test\n    path: "+users+"\n")
	dir := t.TempDir()
	checkLoginCycle(t, dir, addr, Credentials{Username: "alice", Password: "secret"})
}
