package server

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/crypto/bcrypt"
)

// Users are names with their bcrypt password hashes, as htpasswd -B writes
// them.
type Users struct {
	hashes map[string][]byte
	nobody []byte // a hash that takes as long to check as a real one

	mu    sync.Mutex
	key   [32]byte
	known map[[sha256.Size]byte]bool // keyed hashes of what has been checked and is right
}

// ReadUsers reads the htpasswd file called name.
func ReadUsers(name string) (*Users, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	u := &Users{hashes: map[string][]byte{}, known: map[[sha256.Size]byte]bool{}}
	if _, err := rand.Read(u.key[:]); err != nil {
		return nil, err
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(text, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return nil, fmt.Errorf("read users: %s:%d: not of the form user:bcrypt-hash (htpasswd -B): %w", name, i+1, errdefs.ErrInvalidArgument)
		}
		u.hashes[user], u.nobody = []byte(hash), []byte(hash)
	}
	return u, nil
}

// guard lets through to next who gives a password of u.
func (u *Users) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, ok := req.BasicAuth(); !ok || !u.check(user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="shale registry", charset="UTF-8"`)
			answer(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return
		}
		next.ServeHTTP(w, req)
	})
}

// check reports whether password is user's. bcrypt is slow on purpose, and a
// push makes many requests, so what was right once is remembered; an unknown
// user takes as long as a wrong password.
func (u *Users) check(user, password string) bool {
	mac := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(mac, "%d:%s:%s", len(user), user, password)
	key := [sha256.Size]byte(mac.Sum(nil))
	u.mu.Lock()
	known := u.known[key]
	u.mu.Unlock()
	if known {
		return true
	}
	hash, exists := u.hashes[user]
	if !exists {
		hash = u.nobody
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !exists {
		return false
	}
	u.mu.Lock()
	u.known[key] = true // at most one for each user: there is one right password
	u.mu.Unlock()
	return true
}
