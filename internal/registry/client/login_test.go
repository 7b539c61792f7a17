package client

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// checkLoginCycle logs in to a registry that takes only good, uses it, and logs
// out again.
func checkLoginCycle(t *testing.T, dir, host string, good Credentials) {
	t.Helper()
	ctx := t.Context()
	c := New(Config{DockerConfigDir: dir})
	bad := good
	bad.Password = "wrong"
	if _, err := c.Login(ctx, host, bad); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
	r, err := c.Registry(host)
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := r.GetTag(ctx, "team/app", "v1"); !errdefs.IsUnauthorized(err) || !errors.As(err, &e) {
		t.Errorf("nobody: %v", err)
	} else if e.Hint() != "log in with: shale login "+host || e.Status != 401 {
		t.Errorf("hint %q, status %d", e.Hint(), e.Status)
	}
	keep, err := c.Login(ctx, host, good)
	if err != nil {
		t.Fatal(err)
	}
	where, err := c.Store(ctx, host, keep)
	if err != nil || where != filepath.Join(dir, "config.json") {
		t.Fatalf("stored in %q: %v", where, err)
	}
	c = New(Config{DockerConfigDir: dir})
	if r, err = c.Registry(host); err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, r)
	if found, err := c.Erase(ctx, host); err != nil || !found {
		t.Errorf("erase: %v, %v", found, err)
	}
	if cred, err := c.Credentials(ctx, host); err != nil || cred != (Credentials{}) {
		t.Errorf("after erase: %+v, %v", cred, err)
	}
}

func TestStoreKeepsWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	old := `{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"dTpw","email":"u@a"},"https://index.docker.io/v1/":{"auth":"dTpw"}},"psFormat":"{{.ID}}"}`
	if err := os.WriteFile(name, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	c := New(Config{DockerConfigDir: dir})
	if _, err := c.Store(t.Context(), "B.example:5000", Credentials{Username: "bob", Password: "p:q"}); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Erase(t.Context(), "docker.io"); err != nil || !found {
		t.Fatalf("erase: %v, %v", found, err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"psFormat"`, `"X"`, `"u@a"`, `"b.example:5000"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is lost:\n%s", want, data)
		}
	}
	if strings.Contains(string(data), "docker.io") {
		t.Errorf("docker.io is still there:\n%s", data)
	}
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if cred, err := c.Credentials(t.Context(), "b.example:5000"); err != nil || cred.Password != "p:q" {
		t.Errorf("%+v, %v", cred, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCredentialsOfAHostAreFoundUnderTheNamesDockerWrites(t *testing.T) {
	for _, test := range []struct{ config, host, user string }{
		{`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`, "docker.io", "u"},
		{`{"auths":{"docker.io":{"auth":"dTpw"}}}`, "registry-1.docker.io", "u"},
		{`{"auths":{"https://ghcr.io":{"auth":"dTpw"}}}`, "ghcr.io", "u"},
		{`{"auths":{"https://ghcr.io/v2/":{"auth":"dTpw"}}}`, "ghcr.io", "u"},
		{`{"auths":{"ghcr.io":{}}}`, "ghcr.io", ""},
		{`{"auths":{"ghcr.io/team":{"auth":"dTpw"}}}`, "ghcr.io", ""},
		{`{"auths":{"ghcr.io":{"auth":"dTpw"}}}`, "ghcr.io:444", ""},
		{`{"auths":{"x.azurecr.io":{"auth":"MDAwMDo=","identitytoken":"t"}}}`, "x.azurecr.io", "0000"},
		{``, "ghcr.io", ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(test.config), 0o600); err != nil {
			t.Fatal(err)
		}
		cred, err := New(Config{DockerConfigDir: dir}).Credentials(t.Context(), test.host)
		if err != nil || cred.Username != test.user {
			t.Errorf("%s in %s: %+v, %v", test.host, test.config, cred, err)
		}
	}
}

// writeHelper puts a credential helper that keeps secrets in a file on PATH.
func writeHelper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestHelperKeepsCredentials(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	writeHelper(t, "file", `
case $1 in
store) cat >`+state+` ;;
get) read -r s; test -f `+state+` && grep -q "$s" `+state+` && cat `+state+` || { echo credentials not found in native keychain; exit 1; } ;;
erase) rm `+state+` 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
esac`)
	dir := t.TempDir()
	config := `{"auths":{"reg.example":{"auth":"b2xkOm9sZA=="}},"credHelpers":{"reg.example":"file"}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(Config{DockerConfigDir: dir})
	ctx := t.Context()
	for _, cred := range []Credentials{{Username: "u", Password: "p"}, {IdentityToken: "t"}} {
		if where, err := c.Store(ctx, "reg.example", cred); err != nil || where != "file" {
			t.Fatalf("store: %q, %v", where, err)
		}
		if got, err := c.Credentials(ctx, "reg.example"); err != nil || got != cred {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var whole struct{ Auths map[string]map[string]any }
	if err := json.Unmarshal(data, &whole); err != nil || len(whole.Auths["reg.example"]) != 0 {
		t.Errorf("the old password is still in the file: %s", data)
	}
	for _, want := range []bool{true, false} {
		if found, err := c.Erase(ctx, "reg.example"); err != nil || found != want {
			t.Errorf("erase: %v, %v, want %v", found, err, want)
		}
	}
}

// CVE-2021-41092: a helper that fails must not lead to other credentials.
func TestBrokenHelperIsAnErrorAndNothingElse(t *testing.T) {
	writeHelper(t, "broken", "echo boom >&2; exit 3")
	writeHelper(t, "chatty", "echo not json")
	for _, helper := range []string{"broken", "chatty", "missing", "../evil"} {
		for _, config := range []string{
			`{"credHelpers":{"reg.example":"` + helper + `"},"auths":{"reg.example":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"aHViOmh1Yg=="}}}`,
			`{"credsStore":"` + helper + `","auths":{"reg.example":{"auth":"dTpw"}}}`,
		} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			cred, err := New(Config{DockerConfigDir: dir}).Credentials(t.Context(), "reg.example")
			if err == nil || cred != (Credentials{}) {
				t.Errorf("%s: %+v, %v", config, cred, err)
			}
		}
	}
}
