package store

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestAStoreIsTidiedOnceADay(t *testing.T) {
	s := open(t)
	garbage := func() {
		l := lease(t, s)
		mustImage(t, s, l, "garbage")
		l.Close()
	}
	garbage()
	now := time.Now()
	for _, c := range []struct {
		hours int
		want  bool
	}{{1, false}, {23, false}, {25, true}, {26, false}, {48, false}, {50, true}} {
		r, err := s.tidy(t.Context(), now.Add(time.Duration(c.hours)*time.Hour))
		if err != nil || (r.Blobs > 0) != c.want || has(s, digest.FromString("garbage")) == c.want {
			t.Errorf("after %d hours: %+v, %v", c.hours, r, err)
		}
		garbage()
	}
}
