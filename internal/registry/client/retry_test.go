package client

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// Row 18 of the scoreboard.
func TestRegistryThatHealsInAMinuteIsWaitedFor(t *testing.T) {
	for _, status := range []int{408, 429, 502, 503, 504} {
		for _, after := range []string{"", "3", "date"} {
			if status == 429 && after == "" {
				continue // a quota, most likely
			}
			var f *fakeClock
			var start time.Time
			var sick atomic.Int32
			heals := time.Minute
			if status == 429 {
				heals = 20 * time.Second
			}
			r, _, clock := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if f != nil && f.now().Sub(start) < heals-time.Second {
					sick.Add(1)
					switch after {
					case "3":
						w.Header().Set("Retry-After", "3")
					case "date":
						w.Header().Set("Retry-After", f.now().Add(5*time.Second).UTC().Format(http.TimeFormat))
					}
					w.WriteHeader(status)
					return
				}
				fmt.Fprint(w, blobText)
			}), Config{})
			f, start = clock, clock.now()
			if err := getBlob(t.Context(), r); err != nil {
				t.Errorf("%d, Retry-After %q: %v", status, after, err)
			}
			if rate := float64(sick.Load()) / heals.Seconds(); rate > 1 || sick.Load() < 4 {
				t.Errorf("%d, Retry-After %q: %d requests to a sick registry", status, after, sick.Load())
			}
		}
	}
}

func TestRegistryThatStaysSickIsGivenUp(t *testing.T) {
	for _, test := range []struct {
		status   int
		after    string
		requests int32 // at most
		wait     time.Duration
		class    func(error) bool
	}{
		{500, "", 4, 5 * time.Second, errdefs.IsUnavailable},
		{503, "", 20, 70 * time.Second, errdefs.IsUnavailable},
		{503, "100000", 2, 70 * time.Second, errdefs.IsUnavailable},
		{429, "", 5, 8 * time.Second, errdefs.IsResourceExhausted},
		{429, "1", 9, 20 * time.Second, errdefs.IsResourceExhausted},
		{404, "", 1, 0, errdefs.IsNotFound},
		{403, "", 1, 0, errdefs.IsPermissionDenied},
		{401, "", 1, 0, errdefs.IsUnauthorized},
		{400, "", 1, 0, errdefs.IsInvalidArgument},
		{501, "", 1, 0, errdefs.IsUnavailable},
	} {
		var requests atomic.Int32
		r, _, clock := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			requests.Add(1)
			if test.after != "" {
				w.Header().Set("Retry-After", test.after)
			}
			w.WriteHeader(test.status)
		}), Config{})
		err := getBlob(t.Context(), r)
		if !test.class(err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %v", test.status, err)
		}
		if requests.Load() > test.requests || clock.total() > test.wait {
			t.Errorf("%d, Retry-After %q: %d requests, waited %v", test.status, test.after, requests.Load(), clock.total())
		}
	}
}

func TestManyFailingRequestsAreKeptApart(t *testing.T) {
	f := newFakeClock()
	c := newClient(Config{}, f.clock(), testLimits)
	var mu sync.Mutex
	at := map[time.Duration]int{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			d := c.retry.delay("h", 0, nil)
			mu.Lock()
			defer mu.Unlock()
			at[d.Truncate(time.Second)]++
		})
	}
	wg.Wait()
	for second, n := range at {
		if n > 10 {
			t.Errorf("%d retries in second %v", n, second)
		}
	}
	if d := c.retry.delay("other", 0, nil); d > firstDelay {
		t.Errorf("another host waits %v", d)
	}
}

// A body is sent twice only if it can be had twice.
func TestUploadIsRepeatedOnlyFromASourceThatCanBeReadAgain(t *testing.T) {
	data, desc := randomBlob(100_000)
	for _, again := range []bool{true, false} {
		var puts atomic.Int32
		r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch req.Method {
			case "POST":
				w.Header().Set("Location", "/up")
				w.WriteHeader(202)
			case "PUT":
				got, _ := io.ReadAll(req.Body)
				if puts.Add(1) < 3 {
					w.WriteHeader(503)
					return
				}
				if !bytes.Equal(got, data) {
					t.Error("content differs")
				}
				w.WriteHeader(201)
			case "HEAD":
				w.WriteHeader(404)
			}
		}), Config{})
		source := io.Reader(bytes.NewReader(data))
		if !again {
			source = io.MultiReader(source)
		}
		_, err := r.PushBlob(t.Context(), "a", desc, source)
		if (err == nil) != again || again && puts.Load() != 3 || !again && puts.Load() != 1 {
			t.Errorf("again %v: %d requests, %v", again, puts.Load(), err)
		}
	}
}

func TestSourceThatFailsIsNotTheRegistrysFault(t *testing.T) {
	_, desc := randomBlob(100_000)
	r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Location", "/up")
		w.WriteHeader(202)
	}), Config{})
	_, err := r.PushBlob(t.Context(), "a", desc, strings.NewReader("too short"))
	if !strings.Contains(fmt.Sprint(err), "source ends 99991 bytes early") {
		t.Errorf("%v", err)
	}
}

func TestUnreachableRegistryIsSaidSoSoon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c, clock := testClient(t, Config{})
	r, err := c.Registry(addr)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.GetTag(t.Context(), "a", "v1")
	if want := "get manifest " + addr + "/a:v1: registry unreachable: connection refused"; fmt.Sprint(err) != want || !errdefs.IsUnavailable(err) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if clock.total() > 3*time.Second {
		t.Errorf("waited %v", clock.total())
	}
}

func TestErrorsAreOneLineWhateverTheRegistrySays(t *testing.T) {
	for _, test := range []struct {
		status     int
		body, want string
	}{
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}`, "name unknown: repository name not known to registry"},
		{404, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, "manifest unknown: manifest unknown to registry"},
		{404, `<html>`, "manifest unknown: manifest unknown to registry"},
		{403, `{"errors":[{"code":"DENIED","message":"no\u001b[31m\nway\u0000!"}]}`, "registry HOST answers 403: no [31m way !"},
		{400, `{"errors":[{"code":"TOOMANY_THINGS"}]}`, "registry HOST answers 400: toomany things"},
		{418, ``, "registry HOST answers 418: i'm a teapot"},
		{401, ``, "the repository does not exist or needs a login"},
		{400, `{"errors":[{"code":"X","message":"` + strings.Repeat("y", 5000) + `"}]}`, "registry HOST answers 400: " + strings.Repeat("y", 200) + "…"},
	} {
		r, s, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		}), Config{})
		_, err := r.GetTag(t.Context(), "a", "v1")
		host := s.Listener.Addr().String()
		if want := "get manifest " + host + "/a:v1: " + strings.ReplaceAll(test.want, "HOST", host); fmt.Sprint(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, "Mon, 23 Nov 2026 09:00:07 GMT": 7 * time.Second, "Mon, 23 Nov 2020 09:00:07 GMT": 0,
		"": -1, "-1": -1, "x": -1, "1.5": -1, "99999999999": -1,
	} {
		got, ok := retryAfter(s, now)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
