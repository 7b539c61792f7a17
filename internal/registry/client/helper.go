package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// The protocol of credential helpers: a program docker-credential-NAME on the
// PATH that is run with one argument, get, store or erase, and given the server
// on standard input. See https://github.com/docker/docker-credential-helpers.

// tokenUser is the user name that marks a secret as an identity token.
const tokenUser = "<token>"

// notStored is what all helpers answer to get and erase for a server that they
// have nothing for. It comes on standard output, with exit code 1.
const notStored = "credentials not found in native keychain"

type helperCredentials struct {
	ServerURL string `json:",omitempty"`
	Username  string
	Secret    string
}

func helperGet(ctx context.Context, helper, server string) (Credentials, error) {
	out, err := runHelper(ctx, helper, "get", []byte(server))
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return Credentials{}, nil
		}
		return Credentials{}, err
	}
	var got helperCredentials
	if err := json.Unmarshal(out, &got); err != nil {
		return Credentials{}, fmt.Errorf("ask credential helper %s for %s: the answer is not JSON: %w", helper, server, errdefs.ErrFailedPrecondition)
	}
	if got.Username == tokenUser {
		return Credentials{IdentityToken: got.Secret}, nil
	}
	return Credentials{Username: got.Username, Password: got.Secret}, nil
}

func helperStore(ctx context.Context, helper, server string, cred Credentials) error {
	give := helperCredentials{server, cred.Username, cred.Password}
	if cred.IdentityToken != "" {
		give.Username, give.Secret = tokenUser, cred.IdentityToken
	}
	data, err := json.Marshal(give)
	if err != nil {
		return err
	}
	_, err = runHelper(ctx, helper, "store", data)
	return err
}

func helperErase(ctx context.Context, helper, server string) (found bool, err error) {
	_, err = runHelper(ctx, helper, "erase", []byte(server))
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// runHelper runs the helper. An error of class [errdefs.ErrNotFound] says that
// it works and has nothing; every other one that it cannot be relied on.
func runHelper(ctx context.Context, helper, verb string, input []byte) ([]byte, error) {
	op := fmt.Sprintf("ask credential helper %s to %s", helper, verb)
	program := "docker-credential-" + helper
	if helper != filepath.Base(helper) || strings.HasPrefix(helper, ".") {
		return nil, fmt.Errorf("%s: the name must not be a path: %w", op, errdefs.ErrInvalidArgument)
	}
	path, err := exec.LookPath(program) // never the current directory: that is exec.ErrDot
	if err != nil {
		return nil, fmt.Errorf("%s: no program %s on the PATH: %w", op, program, errdefs.ErrFailedPrecondition)
	}
	cmd := exec.CommandContext(ctx, path, verb)
	cmd.Stdin = bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		text := oneLine(out.String() + " " + errs.String())
		if verb != "store" && strings.Contains(text, notStored) {
			return nil, fmt.Errorf("%s: %w", op, errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("%s: %w: %s: %w", op, err, text, errdefs.ErrFailedPrecondition)
	}
	return out.Bytes(), nil
}
