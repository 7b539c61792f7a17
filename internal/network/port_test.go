package network

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

func TestPublishedPortsParseAsDockers(t *testing.T) {
	for _, test := range []struct{ spec, want string }{
		{"80", "[0.0.0.0:0 -> 80/tcp]"},
		{"8080:80", "[0.0.0.0:8080 -> 80/tcp]"},
		{"8080:80/udp", "[0.0.0.0:8080 -> 80/udp]"},
		{"127.0.0.1:8080:80", "[127.0.0.1:8080 -> 80/tcp]"},
		{"127.0.0.1::80", "[127.0.0.1:0 -> 80/tcp]"},
		{"[::1]:8080:80/TCP", "[[::1]:8080 -> 80/tcp]"},
		{"8000-8001:80-81", "[0.0.0.0:8000 -> 80/tcp 0.0.0.0:8001 -> 81/tcp]"},
	} {
		ports, err := ParsePort(test.spec)
		if err != nil {
			t.Errorf("%s: %v", test.spec, err)
		} else if got := fmt.Sprint(ports); got != test.want {
			t.Errorf("%s: got %s, want %s", test.spec, got, test.want)
		}
	}
	for _, spec := range []string{"", "0", "x", "65536", "80/sctp", "8000-8002:80-81", "81-80", "[::1:80:80", "1.2.3:80:80", ":"} {
		if ports, err := ParsePort(spec); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: got %v, %v", spec, ports, err)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	f.Add("127.0.0.1:8000-8001:80-81/udp")
	f.Add("[::1]:1:1")
	f.Fuzz(func(t *testing.T, spec string) {
		ports, err := ParsePort(spec)
		if (err == nil) != (len(ports) > 0) {
			t.Errorf("%q: %v, %v", spec, ports, err)
		}
	})
}
