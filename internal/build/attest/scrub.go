package attest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/shaleproject/shale/internal/build/export"
)

// mask stands where something was taken out; it is BuildKit's.
const mask = "xxxxx"

// minSecret is the size in bytes from which on a secret is looked for: the
// value "1" is no secret, and is everywhere.
const minSecret = 4

var (
	// userinfo is that of a URL (RFC 3986, 3.2.1), in any text.
	userinfo = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/\s"'<>@?#]*@)+`)
	})

	// tokens are the parameters of URLs that stand for a password: those of
	// signed URLs of the large clouds, and what forges call theirs.
	tokens = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)([?&](?:[a-z_-]*token|x-amz-signature|x-amz-credential|x-goog-signature|x-goog-credential|` +
			`signature|sig|awsaccesskeyid|key|api_?key|client_secret|secret|password|passwd|pwd|auth|authorization)=)[^&\s"'#<>]+`)
	})
)

// proxies are variables that hold the address of a proxy without its scheme.
var proxies = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)([a-z]_proxy["']?\s*[= :]\s*["']?)[^\s"'/@<>]+(?:@[^\s"'/@<>]+)*@`)
})

// scrubber takes out of texts what must not be told.
type scrubber struct{ secrets *strings.Replacer }

func newScrubber(secrets [][]byte) *scrubber {
	var values []string
	for _, s := range secrets {
		for _, v := range []string{string(s), strings.TrimSpace(string(s))} {
			if len(v) >= minSecret {
				values = append(values, v)
			}
		}
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(values, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var pairs []string
	for _, v := range slices.Compact(values) {
		pairs = append(pairs, v, mask)
	}
	return &scrubber{strings.NewReplacer(pairs...)}
}

// Scrub takes out of a text the values of secrets, and what stands for a
// password in URLs.
func Scrub(text string, secrets map[string][]byte) string {
	return newScrubber(slices.Collect(maps.Values(secrets))).text(text)
}

func (s *scrubber) text(text string) string {
	text = s.secrets.Replace(text)
	text = userinfo().ReplaceAllStringFunc(text, func(m string) string {
		scheme, user, _ := strings.Cut(m, "://")
		if scheme == "ssh" && !strings.Contains(user, ":") {
			return m // git@: a name that everybody has
		}
		return scheme + "://" + mask + ":" + mask + "@"
	})
	text = proxies().ReplaceAllString(text, "${1}"+mask+":"+mask+"@")
	return tokens().ReplaceAllString(text, "${1}"+mask)
}

// json scrubs every string of a JSON document, keys included.
func (s *scrubber) json(data []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("scrub: %w", err)
	}
	return export.Marshal(s.value(v))
}

func (s *scrubber) value(v any) any {
	switch v := v.(type) {
	case string:
		return s.text(v)
	case []any:
		for n := range v {
			v[n] = s.value(v[n])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[s.text(key)] = s.value(value)
		}
		return out
	}
	return v
}

// withoutUser takes user and password out of the address of a proxy, which
// may have no scheme.
func withoutUser(address string) string {
	if at := strings.LastIndex(address, "@"); at >= 0 && !strings.Contains(address, "://") {
		return mask + ":" + mask + address[at:]
	}
	return address
}
