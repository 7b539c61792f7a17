package cache

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
)

// Kept is a step whose result the store keeps.
type Kept struct {
	Key           string
	By            string          // what made it
	Added         []digest.Digest // its own layers: the topmost of each output
	Created, Used time.Time
}

// Records returns the steps that s knows. A step that has several keys
// counts once.
func Records(ctx context.Context, s *store.Store) ([]Kept, error) {
	all, err := s.Cache("build").All(ctx)
	if err != nil {
		return nil, err
	}
	byResult := map[string]Kept{}
	for key, r := range all {
		var rec record
		if json.Unmarshal(r.Data, &rec) != nil {
			continue
		}
		k := Kept{Key: key, Created: r.Updated, Used: r.Used}
		for _, out := range rec.Outputs {
			if n := len(out); n > 0 && !slices.Contains(k.Added, out[n-1].Digest) {
				k.Added, k.By = append(k.Added, out[n-1].Digest), out[n-1].By
			}
		}
		id := string(r.Data)
		if other, ok := byResult[id]; ok {
			if other.Key < k.Key {
				k.Key = other.Key
			}
			if other.Used.After(k.Used) {
				k.Used = other.Used
			}
			if other.Created.Before(k.Created) {
				k.Created = other.Created
			}
		}
		byResult[id] = k
	}
	out := make([]Kept, 0, len(byResult))
	for _, k := range byResult {
		out = append(out, k)
	}
	return out, nil
}
