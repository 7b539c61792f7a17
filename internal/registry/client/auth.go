package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociauth"
)

// auth adds to the requests for one registry what the registry asks for, and
// to no others. It sits above [retry] and below ociclient, which puts the
// scope that a request needs into its context.
type auth struct {
	client *Client
	name   string // as the user knows it, for config.json
	next   http.RoundTripper

	load  sync.Mutex
	known bool // cred has been read
	cred  Credentials

	turn   chan struct{} // held by the one request that fetches a token
	mu     sync.Mutex
	asked  *challenge // the registry's latest
	tokens []token
}

// token is an access token and what it is good for.
type token struct {
	scope   ociauth.Scope
	text    string
	expires time.Time
}

// spare is how long before its end a token is no longer used, so that it
// lasts until the registry has looked at it.
const spare = 10 * time.Second

func newAuth(c *Client, name string, next http.RoundTripper) *auth {
	return &auth{client: c, name: name, next: next, turn: make(chan struct{}, 1)}
}

// anonymous reports whether there is nothing to authenticate with.
func (a *auth) anonymous() bool {
	a.load.Lock()
	defer a.load.Unlock()
	return a.cred == Credentials{}
}

// credentials returns what is stored for the registry. A helper may be slow,
// so it is asked once.
func (a *auth) credentials(ctx context.Context) (Credentials, error) {
	a.load.Lock()
	defer a.load.Unlock()
	if a.known {
		return a.cred, nil
	}
	cred, err := a.client.Credentials(ctx, a.name)
	if err != nil {
		return Credentials{}, err
	}
	a.cred, a.known = cred, true
	return cred, nil
}

// RoundTrip sends req, which is for the registry's own origin, with the
// authorization that is known to be needed; when the registry asks for another,
// it gets that and sends req once more.
func (a *auth) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	need := scopeOf(ctx)
	sent, err := a.authorization(ctx, originOf(req.URL), need)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := a.next.RoundTrip(withAuthorization(req, sent))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	asked := choose(challenges(resp.Header))
	if asked == nil || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return resp, nil
	}
	a.forget(sent)
	a.mu.Lock()
	a.asked = asked
	a.mu.Unlock()
	got, err := a.authorization(ctx, originOf(req.URL), need.Union(ociauth.ParseScope(asked.params["scope"])))
	if err != nil {
		drain(resp)
		return nil, err
	}
	if got == "" || got == sent {
		return resp, nil
	}
	drain(resp)
	if req.GetBody != nil {
		req = req.Clone(ctx)
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return a.next.RoundTrip(withAuthorization(req, got))
}

// scopeOf returns the scope that ociclient noted for the request of ctx.
// Whoever may push has to look first what is there, so push asks for pull too
// and one token does for both.
func scopeOf(ctx context.Context) ociauth.Scope {
	scope := ociauth.RequestInfoFromContext(ctx).RequiredScope
	for r := range scope.Iter() {
		if r.ResourceType == ociauth.TypeRepository && r.Action == ociauth.ActionPush {
			r.Action = ociauth.ActionPull
			scope = scope.Union(ociauth.NewScope(r))
		}
	}
	return scope
}

func withAuthorization(req *http.Request, value string) *http.Request {
	req = req.Clone(req.Context())
	if value == "" {
		req.Header.Del("Authorization")
	} else {
		req.Header.Set("Authorization", value)
	}
	return req
}

// choose returns the challenge to answer: Bearer before Basic, as Docker does.
func choose(offered []challenge) *challenge {
	var basic *challenge
	for i, c := range offered {
		switch {
		case c.scheme == "bearer" && c.params["realm"] != "":
			return &offered[i]
		case c.scheme == "basic" && basic == nil:
			basic = &offered[i]
		}
	}
	return basic
}

// authorization returns the header to send for scope, fetching a token if it
// must. Before the registry has asked for anything it is sent nothing.
func (a *auth) authorization(ctx context.Context, registry origin, scope ociauth.Scope) (string, error) {
	a.mu.Lock()
	asked := a.asked
	a.mu.Unlock()
	if asked == nil {
		return "", nil
	}
	cred, err := a.credentials(ctx)
	if err != nil {
		return "", err
	}
	if asked.scheme == "basic" {
		if cred.Username == "" && cred.Password == "" {
			return "", nil
		}
		return "Basic " + basic(cred.Username, cred.Password), nil
	}
	if cred.RegistryToken != "" {
		return "Bearer " + cred.RegistryToken, nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if t := a.cached(scope); t != "" {
		return "Bearer " + t, nil
	}
	t, err := a.fetch(ctx, registry, asked, scope, cred)
	if err != nil || t.text == "" {
		return "", err
	}
	a.mu.Lock()
	a.tokens = append(a.tokens, t)
	a.mu.Unlock()
	return "Bearer " + t.text, nil
}

// cached returns a token that covers scope and lasts a while.
func (a *auth) cached(scope ociauth.Scope) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	soon := a.client.clock.now().Add(spare)
	kept := a.tokens[:0]
	found := ""
	for _, t := range a.tokens {
		if !t.expires.After(soon) {
			continue
		}
		kept = append(kept, t)
		if t.scope.Contains(scope) {
			found = t.text
		}
	}
	a.tokens = kept
	return found
}

// forget drops the token that was sent as header and not accepted.
func (a *auth) forget(header string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, t := range a.tokens {
		if "Bearer "+t.text == header {
			a.tokens = append(a.tokens[:i], a.tokens[i+1:]...)
			return
		}
	}
}

// realm parses the address of the token server and says whether credentials
// may be sent there. A registry that is itself spoken to through TLS cannot
// move the conversation out of it.
func (a *auth) realm(registry origin, asked *challenge) (u *url.URL, trusted bool, err error) {
	u, err = url.Parse(asked.params["realm"])
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, false, &refused{text: fmt.Sprintf("registry %s names a malformed token server", a.name)}
	}
	target := originOf(u)
	if registry.scheme == "https" && target.scheme != "https" {
		return nil, false, &refused{text: fmt.Sprintf("registry %s names a token server without TLS: %s", a.name, target)}
	}
	if registry != target && isLocal(target.host) && !isLocal(registry.host) {
		return nil, false, &refused{text: fmt.Sprintf("registry %s names a token server of this machine: %s", a.name, target)}
	}
	return u, a.client.paired(registry, target), nil
}
