package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
)

// subject is what a statement is about (in-toto/attestation,
// spec/v1/resource_descriptor.md).
type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// AboutFiles writes the in-toto statement that predicate is true of every
// regular file in fsys: of files that are no image, each is named.
func AboutFiles(fsys fs.FS, predicateType string, predicate []byte) ([]byte, error) {
	subjects := []subject{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		subjects = append(subjects, subject{name, map[string]string{"sha256": hex.EncodeToString(sum.Sum(nil))}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write statement about files: %w", err)
	}
	return json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{"https://in-toto.io/Statement/v1", predicateType, subjects, predicate})
}
