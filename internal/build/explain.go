package build

import (
	"github.com/shaleproject/shale/internal/build/cache"
)

// newJournal returns the journal of what is built. A Dockerfile is known by
// its place; those that have none share a journal.
func (j *job) newJournal() *cache.Journal {
	ignored := "--no-cache"
	if !j.req.Cache.Ignore {
		ignored = "--no-cache-filter, for this step or one before it,"
	}
	return cache.NewJournal(j.Store, cache.JournalOptions{
		Scope:   j.scope(),
		Args:    sorted(j.req.Language.Args),
		Ignored: ignored,
		Explain: j.req.Cache.Explain || j.req.Timeline,
	})
}
