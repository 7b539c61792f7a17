package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// Object renders one value as `inspect --format` does: the template sees the
// value, or, if that has no such fields, its JSON, in which the fields have
// the names that inspect prints ("Id" beside "ID").
func Object(w io.Writer, spec string, value any) error {
	f, err := Parse(spec, "", nil)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if f.line(&out, value) != nil {
		data, err := json.Marshal(value)
		if err != nil {
			return err
		}
		var fields any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&fields); err != nil {
			return err
		}
		out.Reset()
		f.template.Option("missingkey=error")
		if err := f.template.Execute(&out, fields); err != nil {
			return fmt.Errorf("render format: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		out.WriteByte('\n')
	}
	_, err = w.Write(out.Bytes())
	return err
}
