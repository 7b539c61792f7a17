package tree

import (
	"encoding/binary"

	"github.com/shaleproject/shale/internal/sys"
)

// table is a list of records with names, in the order of these, that a spill
// keeps. It costs no memory, however long it is. A record is the length of the
// name as a uvarint, the name, and the rest. Somewhere behind the records are, for
// each, four bytes that say where it begins.
type table struct {
	in     *sys.Spill
	at     int64 // where the records begin
	size   int   // of all of them, in bytes
	starts int64 // where the four bytes are
	n      int
}

// tableWriter makes a table. Nothing else may put anything into the spill
// meanwhile.
type tableWriter struct {
	in      *sys.Spill
	table   table // what is in the spill
	starts  []byte
	records []byte // that are not
}

// tableBuffer is how many bytes of records are put at once.
const tableBuffer = 64 << 10

// add begins the next record. Its bytes are to be appended to the records.
func (w *tableWriter) add(name string) {
	if len(w.records) >= tableBuffer {
		w.flush()
	}
	w.starts = binary.LittleEndian.AppendUint32(w.starts, uint32(w.table.size+len(w.records)))
	w.text(name)
	w.table.n++
}

// number, offset and text append to the record.
func (w *tableWriter) number(n uint64) { w.records = binary.AppendUvarint(w.records, n) }
func (w *tableWriter) offset(n int64)  { w.records = binary.AppendVarint(w.records, n) }
func (w *tableWriter) text(s string) {
	w.number(uint64(len(s)))
	w.records = append(w.records, s...)
}

func (w *tableWriter) flush() {
	at := w.in.Put(w.records)
	if w.table.size == 0 {
		w.table.at = at
	}
	w.table.size += len(w.records)
	w.records = w.records[:0]
}

// done returns the table.
func (w *tableWriter) done() table {
	w.flush()
	w.table.in, w.table.starts = w.in, w.in.Put(w.starts)
	return w.table
}

// encodeTable appends t itself.
func (w *tableWriter) encodeTable(t table) {
	w.offset(t.at)
	w.number(uint64(t.size))
	w.offset(t.starts)
	w.number(uint64(t.n))
}

// decodeTable reads a table that in keeps.
func (r *record) decodeTable(in *sys.Spill) table {
	return table{in: in, at: r.offset(), size: int(r.number()), starts: r.offset(), n: int(r.number())}
}

// record is one record of a table, or what is left of it.
type record struct{ rest []byte }

func (r *record) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.rest = r.rest[size:]
	return n
}

func (r *record) offset() int64 {
	n, size := binary.Varint(r.rest)
	r.rest = r.rest[size:]
	return n
}

func (r *record) text() string { return string(r.name()) }

// name is text that is not copied.
func (r *record) name() []byte {
	n := r.number()
	name := r.rest[:n]
	r.rest = r.rest[n:]
	return name
}

// span returns the records from number i to number j.
func (t *table) span(i, j int) ([]record, error) {
	starts := make([]byte, 4*(j-i), 4*(j-i)+4)
	if j < t.n {
		starts = starts[:cap(starts)]
	}
	if err := t.in.Read(starts, t.starts+int64(4*i)); err != nil {
		return nil, err
	}
	if j == t.n {
		starts = binary.LittleEndian.AppendUint32(starts, uint32(t.size))
	}
	start := func(k int) int { return int(binary.LittleEndian.Uint32(starts[4*k:])) }
	first := start(0)
	data := make([]byte, start(j-i)-first)
	if err := t.in.Read(data, t.at+int64(first)); err != nil {
		return nil, err
	}
	records := make([]record, j-i)
	for k := range records {
		records[k].rest = data[start(k)-first : start(k+1)-first]
	}
	return records, nil
}

// nearBefore and nearBehind are how many records around the last one are looked at
// first.
const (
	nearBefore = 2
	nearBehind = 4
)

// find returns the record that has a name, and its number. ok is false if there
// is none. It is quick if the name comes soon behind that of record number near.
func (t *table) find(name string, near int) (r record, i int, ok bool, err error) {
	low, high := 0, t.n
	if from, to := max(0, near-nearBefore), min(near+nearBehind, t.n); from < to {
		records, err := t.span(from, to)
		if err != nil {
			return record{}, 0, false, err
		}
		for k, r := range records {
			switch text := r.name(); {
			case string(text) == name:
				return r, from + k, true, nil
			case string(text) < name:
				low = from + k + 1
			default:
				high = min(high, from+k)
			}
		}
	}
	for low < high {
		i := (low + high) / 2
		found, err := t.span(i, i+1)
		if err != nil {
			return record{}, 0, false, err
		}
		r := found[0]
		switch text := r.name(); {
		case string(text) == name:
			return r, i, true, nil
		case string(text) < name:
			low = i + 1
		default:
			high = i
		}
	}
	return record{}, 0, false, nil
}

// spanned is how many records are read at once.
const spanned = 4096

// each calls f with every record, in order, with its number and its name.
func (t *table) each(f func(i int, name string, r record) error) error {
	for i := 0; i < t.n; i += spanned {
		records, err := t.span(i, min(i+spanned, t.n))
		if err != nil {
			return err
		}
		for k, r := range records {
			if err := f(i+k, r.text(), r); err != nil {
				return err
			}
		}
	}
	return nil
}
