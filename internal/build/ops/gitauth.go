package ops

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// authorization is the header that the server of op is sent: the credentials
// of the URL, or else the first of these secrets that there is. It is empty if
// there are none, or if they could change the configuration that carries them.
func (op *git) authorization() string {
	u, err := url.Parse(op.remote)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	basic := func(user string) string { return "basic " + base64.StdEncoding.EncodeToString([]byte(user)) }
	if op.user != nil {
		password, _ := op.user.Password()
		return basic(op.user.Username() + ":" + password)
	}
	secrets := op.tools.Runner.Secrets
	for _, server := range []string{"." + u.Host, ""} {
		if name := op.attrs[pb.AttrAuthHeaderSecret]; name != "" && len(secrets[name+server]) > 0 {
			header := oneLine(secrets[name+server])
			if strings.ContainsAny(header, "\n\r\x00\"\\") {
				return ""
			}
			return header
		}
		if name := op.attrs[pb.AttrAuthTokenSecret]; name != "" && len(secrets[name+server]) > 0 {
			return basic("x-access-token:" + oneLine(secrets[name+server]))
		}
	}
	return ""
}

// oneLine is a secret that is sent as a header, without the newline that its
// file ends with.
func oneLine(secret []byte) string { return strings.TrimRight(string(secret), "\r\n") }

// credentials are the lines of git's configuration that have the authorization.
// git would send it along wherever the server sends git, so that it may not
// go there by itself.
func (op *git) credentials() string {
	header := op.authorization()
	u, err := url.Parse(op.remote)
	if header == "" || err != nil {
		return ""
	}
	return fmt.Sprintf("[http %q]\n\textraHeader = \"Authorization: %s\"\n\tfollowRedirects = false\n", u.Scheme+"://"+u.Host+"/", header)
}

// redirected is where the server has the repository, if that is elsewhere. The
// authorization is sent within its origin alone: git has it in its
// configuration for that, and not for other servers.
func (op *git) redirected(ctx context.Context) string {
	const refs = "/info/refs"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(op.remote, "/")+refs+"?service=git-upload-pack", nil)
	if err != nil {
		return ""
	}
	asked := req.URL.String()
	req.Header.Set("Authorization", op.authorization())
	resp, err := (&http.Client{Transport: op.tools.Transport, CheckRedirect: sameOrigin}).Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	to := *resp.Request.URL
	if to.String() == asked || !strings.HasSuffix(to.Path, refs) || to.Scheme != "https" && to.Scheme != "http" {
		return ""
	}
	to.Path, to.RawPath, to.RawQuery, to.User = strings.TrimSuffix(to.Path, refs), "", "", nil
	return to.String()
}
