package s3

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The examples of AWS's documentation ("Signature Calculations for the
// Authorization Header").
func TestSignaturesAreThoseOfTheDocumentation(t *testing.T) {
	c := Credentials{KeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	body := sha256.Sum256([]byte("Welcome to Amazon S3."))
	for _, test := range []struct {
		method, key, sum, want string
		header                 map[string]string
	}{
		{"GET", "/test.txt", emptySum, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", map[string]string{"Range": "bytes=0-9"}},
		{"PUT", "/test$file.text", hex.EncodeToString(body[:]), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
			map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}},
	} {
		r := httptest.NewRequest(test.method, "https://examplebucket.s3.amazonaws.com/", nil)
		r.URL.Path, r.URL.RawPath = test.key, escape(test.key)
		for name, value := range test.header {
			r.Header.Set(name, value)
		}
		c.sign(r, "us-east-1", test.sum, now)
		if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+test.want) {
			t.Errorf("%s %s: %s, want %s", test.method, test.key, got, test.want)
		}
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	b := Defaults()
	b.Credentials = Credentials{KeyID: "id-canary", Secret: "canary", Token: "token-canary"}
	if text := fmt.Sprintf("%v %+v %#v %s %v", b, b, b, b, &b.Credentials); strings.Contains(text, "canary") {
		t.Error(text)
	}
}

func TestCredentialsAreFound(t *testing.T) {
	home := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(home, ".aws", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("credentials", "# comment\n[default]\naws_access_key_id = one\naws_secret_access_key=s1=+/\n\n[other]\naws_access_key_id=two\naws_secret_access_key=s2\naws_session_token=t2\n")
	write("config", "[profile third]\nregion = x\ns3 =\n  addressing_style = path\naws_access_key_id=three\naws_secret_access_key=s3\n[profile empty]\nrole_arn=x\n")
	for name, test := range map[string]struct {
		env  map[string]string
		want Credentials
	}{
		"the default profile":   {nil, Credentials{"one", "s1=+/", ""}},
		"a profile":             {map[string]string{"AWS_PROFILE": "other"}, Credentials{"two", "s2", "t2"}},
		"a profile of config":   {map[string]string{"AWS_PROFILE": "third"}, Credentials{"three", "s3", ""}},
		"the environment":       {map[string]string{"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_PROFILE": "other"}, Credentials{"e", "s", "t"}},
		"a profile without any": {map[string]string{"AWS_PROFILE": "empty"}, Credentials{}},
		"another file":          {map[string]string{"AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "none")}, Credentials{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Find(func(key string) (string, bool) {
				if key == "HOME" {
					return home, true
				}
				v, ok := test.env[key]
				return v, ok
			})
			if got != test.want || (err == nil) != test.want.complete() {
				t.Errorf("found %s, %s: %v", got.KeyID, got.Secret, err)
			}
		})
	}
}

// fake is a bucket at a server of the test's own.
func fake(t *testing.T, b Bucket, h http.HandlerFunc) *Registry {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	if b.Name == "" {
		b.Name = "bucket"
	}
	b.Region, b.Endpoint, b.PathStyle = "nowhere", server.URL, true
	b.Credentials = Credentials{KeyID: "id-canary", Secret: "secret-canary", Token: "token-canary"}
	r, err := New(b, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARedirectIsNotFollowed(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	defer other.Close()
	r := fake(t, Defaults(), func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, other.URL, http.StatusTemporaryRedirect)
	})
	if _, err := r.GetTag(t.Context(), "", ""); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("error is %v", err)
	}
}

func TestAServerThatRepeatsCredentialsIsNotQuoted(t *testing.T) {
	r := fake(t, Defaults(), func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>No</Code><Message>%s secret-canary id-canary\x1b[31m</Message></Error>", req.Header.Get("x-amz-security-token"))
	})
	_, err := r.GetTag(t.Context(), "", "")
	if err == nil || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("error is %v", err)
	}
}

func TestAServerThatIsBusyIsAskedAgain(t *testing.T) {
	asked, data := 0, []byte("content")
	r := fake(t, Defaults(), func(w http.ResponseWriter, req *http.Request) {
		asked++
		got, _ := io.ReadAll(req.Body)
		if !bytes.Equal(got, data) {
			t.Errorf("request %d has %q", asked, got)
		}
		if asked < attempts {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	desc := descriptor(data)
	if _, err := r.PushBlob(t.Context(), "", desc, bytes.NewReader(data)); err != nil || asked != attempts {
		t.Errorf("asked %d times: %v", asked, err)
	}
	asked = 0
	if _, err := r.PushBlob(t.Context(), "", desc, io.MultiReader(bytes.NewReader(data))); !errdefs.IsUnavailable(err) || asked != 1 {
		t.Errorf("what can't be read twice was asked for %d times: %v", asked, err)
	}
}

func TestOnlyAnOldBlobIsTouched(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]int{time.Hour: 0, 25 * time.Hour: 1} {
		touched := 0
		r := fake(t, Defaults(), func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut && req.Header.Get("x-amz-copy-source") == "bucket/blobs/sha256%3A"+descriptor(nil).Digest.Encoded() {
				touched++
			}
			w.Header().Set("Last-Modified", now.Add(-age).UTC().Format(http.TimeFormat))
		})
		if _, err := r.ResolveBlob(t.Context(), "", descriptor(nil).Digest); err != nil || touched != want {
			t.Errorf("a blob of %s was touched %d times: %v", age, touched, err)
		}
	}
}

func TestACacheOfBuildKitIsNamedAsSuch(t *testing.T) {
	r := fake(t, Defaults(), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"layers":[],"records":[]}`) })
	if _, err := r.GetTag(t.Context(), "", ""); !errdefs.IsNotImplemented(err) {
		t.Errorf("error is %v", err)
	}
}

func TestAManifestWithoutEndIsNotRead(t *testing.T) {
	r := fake(t, Defaults(), func(w http.ResponseWriter, _ *http.Request) {
		for range 2 * maxManifest / 1024 {
			if _, err := w.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	if _, err := r.GetTag(t.Context(), "", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("error is %v", err)
	}
}

func TestABucketThatCannotBeIsRefused(t *testing.T) {
	good := Defaults()
	good.Name, good.Region, good.Credentials = "b", "r", Credentials{KeyID: "i", Secret: "s"}
	for name, spoil := range map[string]func(*Bucket){
		"a name that is another host": func(b *Bucket) { b.Name = "evil.example.com/" },
		"a name that hides a host":    func(b *Bucket) { b.Name = "evil@" },
		"an endpoint of a file":       func(b *Bucket) { b.Endpoint = "file:///etc/passwd" },
		"an endpoint with a password": func(b *Bucket) { b.Endpoint = "http://a:canary@host" },
		"no name for the cache":       func(b *Bucket) { b.Names = nil },
		"no credentials":              func(b *Bucket) { b.Credentials = Credentials{} },
	} {
		b := good
		spoil(&b)
		if _, err := New(b, nil, time.Now); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := New(good, nil, time.Now); err != nil {
		t.Error(err)
	}
}

func descriptor(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}
