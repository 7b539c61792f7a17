package cli

import (
	"bytes"
	"fmt"

	"github.com/shaleproject/shale/internal/build/timeline"
)

// writeTimeline writes the page that draws a build, whole or not at all.
func writeTimeline(file string, t *timeline.Timeline) error {
	var page bytes.Buffer
	if err := t.WriteHTML(&page); err != nil {
		return err
	}
	if err := writeOut(file, page.Bytes()); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}
