package tree

import (
	"encoding/binary"

	"github.com/shaleproject/shale/internal/sys"
)

// table is a list of records with names, in the order of these, that a spill
// keeps. It costs no memory, however long it is. Its bytes are, for each record,
// four that say where it begins, and then the records: the length of the name
// as a uvarint, the name, the rest.
type table struct {
	in   *sys.Spill
	at   int64
	n    int
	size int
}

// tableWriter makes a table.
type tableWriter struct {
	starts  []uint32
	records []byte
}

// add begins the next record. Its bytes are to be appended to the records.
func (w *tableWriter) add(name string) {
	w.starts = append(w.starts, uint32(len(w.records)))
	w.records = binary.AppendUvarint(w.records, uint64(len(name)))
	w.records = append(w.records, name...)
}

// number and offset append to the record.
func (w *tableWriter) number(n uint64) { w.records = binary.AppendUvarint(w.records, n) }
func (w *tableWriter) offset(n int64)  { w.records = binary.AppendVarint(w.records, n) }
func (w *tableWriter) text(s string) {
	w.number(uint64(len(s)))
	w.records = append(w.records, s...)
}

// keep puts the table into a spill, and begins another one.
func (w *tableWriter) keep(in *sys.Spill) table {
	t := table{in: in, n: len(w.starts), size: 4*len(w.starts) + len(w.records)}
	data := make([]byte, 0, t.size)
	for _, start := range w.starts {
		data = binary.LittleEndian.AppendUint32(data, start+uint32(4*t.n))
	}
	t.at = in.Put(append(data, w.records...))
	w.starts, w.records = w.starts[:0], w.records[:0]
	return t
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

func (r *record) text() string {
	n := r.number()
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// span returns the records from number i to number j.
func (t *table) span(i, j int) ([]record, error) {
	starts := make([]byte, 4*(j-i), 4*(j-i)+4)
	if j < t.n {
		starts = starts[:cap(starts)]
	}
	if err := t.in.Read(starts, t.at+int64(4*i)); err != nil {
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

// find returns the record that has a name, and its number. ok is false if there
// is none.
func (t *table) find(name string) (r record, i int, ok bool, err error) {
	low, high := 0, t.n
	for low < high {
		i := (low + high) / 2
		found, err := t.span(i, i+1)
		if err != nil {
			return record{}, 0, false, err
		}
		r := found[0]
		switch text := r.text(); {
		case text == name:
			return r, i, true, nil
		case text < name:
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
