package client

import (
	"net/http"
	"strings"
)

// challenge is one way to authenticate that a WWW-Authenticate header offers.
type challenge struct {
	scheme string            // lower case
	params map[string]string // keys lower case
}

// challenges parses every challenge of the header (RFC 9110, section 11.6.1).
// What it cannot make sense of it leaves out: a registry that offers something
// exotic besides Bearer is still a registry.
func challenges(h http.Header) []challenge {
	var all []challenge
	for _, s := range h.Values("WWW-Authenticate") {
		all = append(all, parseChallenges(s)...)
	}
	return all
}

func parseChallenges(s string) []challenge {
	var all []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		token, rest := cutToken(s)
		if token == "" {
			return all
		}
		if after := strings.TrimLeft(rest, " \t"); strings.HasPrefix(after, "=") && len(all) > 0 {
			value, rest, ok := cutValue(strings.TrimLeft(after[1:], " \t"))
			if !ok {
				return all
			}
			last := all[len(all)-1].params
			if key := strings.ToLower(token); last[key] == "" {
				last[key] = value
			}
			s = rest
			continue
		}
		all = append(all, challenge{strings.ToLower(token), map[string]string{}})
		s = rest
	}
}

// cutToken splits a token (RFC 9110, section 5.6.2) off the front of s.
func cutToken(s string) (token, rest string) {
	end := strings.IndexFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// cutValue splits a token or a quoted string off the front of s.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", \t")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
