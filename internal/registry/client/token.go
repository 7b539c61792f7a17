package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"github.com/containerd/errdefs"
)

const (
	clientID     = "shale"
	longestToken = 1 << 20          // bytes of a token server's answer
	tokenLife    = 60 * time.Second // when expires_in is left out: distribution, "Token Authentication"
)

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// fetch gets a token for scope from the server that asked names. Credentials
// go along only if that server is paired with the registry; without them the
// token is one for anybody.
func (a *auth) fetch(ctx context.Context, registry origin, asked *challenge, scope ociauth.Scope, cred Credentials) (token, error) {
	realm, trusted, err := a.realm(registry, asked)
	if err != nil {
		return token{}, err
	}
	withheld := !trusted && cred != Credentials{}
	if !trusted {
		cred = Credentials{}
	}
	ask := tokenRequest{realm, asked.params["service"], scope}
	var req *http.Request
	if cred.IdentityToken != "" {
		req, err = ask.post(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {cred.IdentityToken}})
	} else {
		req, err = ask.get(ctx, cred)
	}
	if err != nil {
		return token{}, err
	}
	t, err := a.exchange(req, scope)
	var answer ociregistry.HTTPError
	if errors.As(err, &answer) && cred.IdentityToken == "" && cred.Username != "" &&
		(answer.StatusCode() == http.StatusNotFound || answer.StatusCode() == http.StatusMethodNotAllowed) {
		// Some servers know only the OAuth 2 way in.
		if req, err = ask.post(ctx, url.Values{"grant_type": {"password"}, "username": {cred.Username}, "password": {cred.Password}}); err == nil {
			t, err = a.exchange(req, scope)
		}
	}
	if withheld && errors.As(err, &answer) && answer.StatusCode()/100 == 4 {
		target := originOf(realm).host
		return token{}, &refused{
			text: fmt.Sprintf("registry %s wants its login sent to %s, which is not known to belong to it", a.name, target),
			hint: fmt.Sprintf("if it does, add %s to the token servers of %s", target, a.name),
		}
	}
	return t, err
}

// tokenRequest is what is asked of a token server, in either of the two ways of
// https://distribution.github.io/distribution/spec/auth/.
type tokenRequest struct {
	realm   *url.URL
	service string
	scope   ociauth.Scope
}

func (t tokenRequest) get(ctx context.Context, cred Credentials) (*http.Request, error) {
	u := *t.realm
	q := u.Query()
	if t.service != "" {
		q.Set("service", t.service)
	}
	q.Del("scope")
	for _, s := range strings.Fields(t.scope.String()) {
		q.Add("scope", s)
	}
	if cred.Username != "" {
		q.Set("account", cred.Username)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if cred.Username != "" || cred.Password != "" {
		req.Header.Set("Authorization", "Basic "+basic(cred.Username, cred.Password))
	}
	return req, nil
}

func (t tokenRequest) post(ctx context.Context, form url.Values) (*http.Request, error) {
	form.Set("client_id", clientID)
	form.Set("service", t.service)
	form.Set("scope", t.scope.String())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

// exchange sends req and reads the token out of the answer. Redirects are not
// followed: they would carry the credentials along.
func (a *auth) exchange(req *http.Request, scope ociauth.Scope) (token, error) {
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return token{}, fmt.Errorf("get token from %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, longestToken))
	if err != nil {
		return token{}, fmt.Errorf("get token from %s: %w", req.URL.Host, err)
	}
	switch {
	case resp.StatusCode/100 == 3:
		return token{}, &refused{text: fmt.Sprintf("token server %s redirects", req.URL.Host)}
	case resp.StatusCode != http.StatusOK:
		return token{}, ociregistry.NewHTTPError(nil, resp.StatusCode, resp, data)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return token{}, fmt.Errorf("get token from %s: the answer is not a token: %w", req.URL.Host, errdefs.ErrUnavailable)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" || strings.ContainsAny(answer.Token, "\r\n") {
		return token{}, fmt.Errorf("get token from %s: the answer holds none: %w", req.URL.Host, errdefs.ErrUnavailable)
	}
	life := tokenLife
	if answer.ExpiresIn > 0 {
		life = time.Duration(min(answer.ExpiresIn, 1<<31)) * time.Second
	}
	return token{scope, answer.Token, a.client.clock.now().Add(life)}, nil
}
