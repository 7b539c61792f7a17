package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Credentials prove who asks. They don't print.
type Credentials struct {
	KeyID, Secret string
	Token         string // of a session; may be empty
}

// String hides everything; that there are credentials is all that one may see.
func (c Credentials) String() string   { return "credentials" }
func (c Credentials) GoString() string { return "credentials" }

func (c Credentials) complete() bool { return c.KeyID != "" && c.Secret != "" }

const (
	algorithm = "AWS4-HMAC-SHA256"
	emptySum  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// sign adds to r, which has no query, what proves that c has sent it: version 4
// of AWS's signatures (docs.aws.amazon.com, "Authenticating requests"). All
// headers that r has are signed. sum is the SHA-256 of the body, in hex.
func (c Credentials) sign(r *http.Request, region, sum string, now time.Time) {
	now = now.UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	r.Header.Set("x-amz-date", stamp)
	r.Header.Set("x-amz-content-sha256", sum)
	if c.Token != "" {
		r.Header.Set("x-amz-security-token", c.Token)
	}
	names := []string{"host"}
	values := map[string]string{"host": r.Host}
	for name, v := range r.Header {
		name = strings.ToLower(name)
		names = append(names, name)
		values[name] = strings.TrimSpace(strings.Join(v, ","))
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, name := range names {
		fmt.Fprintf(&headers, "%s:%s\n", name, values[name])
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{r.Method, r.URL.EscapedPath(), "", headers.String(), signed, sum}, "\n")
	hashed := sha256.Sum256([]byte(canonical))
	scope := strings.Join([]string{day, region, "s3", "aws4_request"}, "/")
	text := strings.Join([]string{algorithm, stamp, scope, hex.EncodeToString(hashed[:])}, "\n")

	key := []byte("AWS4" + c.Secret)
	for _, part := range []string{day, region, "s3", "aws4_request"} {
		key = mac(key, part)
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s,SignedHeaders=%s,Signature=%s",
		algorithm, c.KeyID, scope, signed, hex.EncodeToString(mac(key, text))))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// escape writes a path as the signature wants it: all but unreserved characters
// (RFC 3986) and slashes as %XX.
func escape(path string) string {
	const hexDigits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			out.WriteByte(c)
		default:
			out.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return out.String()
}
