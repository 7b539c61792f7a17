package s3

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Find returns the credentials of the environment, or else those of the
// profile that it names ("default") in AWS's shared files. env looks a variable
// up. Keys alone are read; what a program, a role or a server would hand out is
// not asked for.
func Find(env func(name string) (string, bool)) (Credentials, error) {
	get := func(name string) string { v, _ := env(name); return v }
	c := Credentials{KeyID: get("AWS_ACCESS_KEY_ID"), Secret: get("AWS_SECRET_ACCESS_KEY"), Token: get("AWS_SESSION_TOKEN")}
	if c.complete() {
		return c, nil
	}
	profile := get("AWS_PROFILE")
	if profile == "" {
		profile = "default"
	}
	for _, file := range sharedFiles(get) {
		for _, name := range []string{profile, "profile " + profile} {
			fields, err := section(file, name)
			if err != nil {
				return Credentials{}, err
			}
			c := Credentials{KeyID: fields["aws_access_key_id"], Secret: fields["aws_secret_access_key"], Token: fields["aws_session_token"]}
			if c.complete() {
				return c, nil
			}
		}
	}
	return Credentials{}, fmt.Errorf("find keys of the profile %q: %w", profile, errdefs.ErrUnauthenticated)
}

// sharedFiles are the files that hold profiles.
func sharedFiles(get func(string) string) []string {
	files := []string{get("AWS_SHARED_CREDENTIALS_FILE"), get("AWS_CONFIG_FILE")}
	for i, name := range []string{"credentials", "config"} {
		if home := get("HOME"); files[i] == "" && home != "" {
			files[i] = filepath.Join(home, ".aws", name)
		}
	}
	return files
}

// section reads one section of a file in AWS's kind of INI. What is indented
// belongs to the line before, and has no keys.
func section(file, name string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fields, inside := map[string]string{}, false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " \t\r")
		switch {
		case line == "" || strings.ContainsAny(line[:1], "#; \t"):
		case line[0] == '[':
			inside = strings.TrimSpace(strings.Trim(line, "[]")) == name
		case inside:
			key, value, _ := strings.Cut(line, "=")
			fields[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return fields, nil
}
