package cli

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/shaleproject/shale/internal/build/timeline"
	"github.com/shaleproject/shale/internal/store"
)

// writeTimeline writes the page that draws a build, whole or not at all.
func writeTimeline(file string, t *timeline.Timeline) error {
	var page bytes.Buffer
	if err := t.WriteHTML(&page); err != nil {
		return err
	}
	path, err := filepath.Abs(file)
	if err == nil {
		err = store.WriteFile(path, page.Bytes())
	}
	if err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}
