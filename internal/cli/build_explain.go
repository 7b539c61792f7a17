package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/shaleproject/shale/internal/build/cache"
)

// printVerdicts says of each step whether it was cached, and why not: a line
// a step, or a JSON document a line.
func (f *buildFlags) printVerdicts(w io.Writer, steps []cache.Verdict) {
	if f.explain == "json" || f.explain != "" && f.progress == string(progressui.RawJSONMode) {
		out := json.NewEncoder(w)
		for _, v := range steps {
			_ = out.Encode(v)
		}
		return
	}
	for _, v := range steps {
		fmt.Fprintln(w, v)
	}
}
