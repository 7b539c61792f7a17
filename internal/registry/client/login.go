package client

import (
	"context"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// Login asks host whether it accepts cred, and returns what to give to Store.
// If it does not, the error is of class [errdefs.ErrUnauthenticated].
func (c *Client) Login(ctx context.Context, host string, cred Credentials) (Credentials, error) {
	at, err := canonicalHost(host)
	if err != nil {
		return Credentials{}, err
	}
	r, err := c.newRegistry(host, at)
	if err != nil {
		return Credentials{}, err
	}
	r.auth.cred, r.auth.known = cred, true
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/v2/", nil)
	if err != nil {
		return Credentials{}, err
	}
	op := "log in to " + host
	resp, err := r.send(req, http.StatusOK)
	if err != nil {
		err = r.fail(op, ociregistry.ErrNameUnknown, err)
		if e, ok := err.(*Error); ok && e.class == errdefs.ErrUnauthenticated {
			e.hint = "" // that is what the user is doing
		}
		return Credentials{}, err
	}
	drain(resp)
	return cred, nil
}
