package inflate

import (
	"math/bits"
	"sync"
)

// Tables are indexed by the next bits of the input. Codes that are longer than
// a table's bits have a second part of the table to themselves.
const (
	litBits  = 11
	distBits = 9
	codeBits = 7
	maxBits  = 15
)

// An entry of litTable and distTable. Bits 0 to 5 say how many bits are used
// up, extra ones included.
//
//	literals   isLiteral, bits 8-9: how many, 16-31: one or two bytes
//	length     bits 8-12: bits of the code alone, 16-24: the length to which the extra bits add
//	distance   bits 8-11: bits of the code alone, 16-31: the distance to which the extra bits add
//	link       isSpecial and isLink, bits 8-11: bits of the part, 16-31: where it begins
//	end        isSpecial and isEnd
//	no code    isSpecial
const (
	isLiteral = 1 << 7
	isEnd     = 1 << 13
	isLink    = 1 << 14
	isSpecial = 1 << 15
)

type (
	litTable  [4096]uint32
	distTable [2048]uint32
	codeTable [1 << codeBits]uint16
)

// RFC 1951 section 3.2.5.
var (
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra  = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// canonical counts codes by length and returns the first code of each. It is
// false for sets that aren't complete, but for a single code of one bit and,
// if allowed, none at all.
func canonical(lengths []uint8) (first [maxBits + 2]uint32, ok bool) {
	var count [maxBits + 1]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	code, left, used := uint32(0), 1, 0
	for n := 1; n <= maxBits; n++ {
		first[n] = code
		code = (code + uint32(count[n])) << 1
		left = left<<1 - count[n]
		if left < 0 {
			return first, false
		}
		used += count[n]
	}
	return first, left == 0 || used == 0 || used == 1 && count[1] == 1
}

// build makes the table of code lengths. An entry has the symbol above bit 4
// and the bits below.
func (t *codeTable) build(lengths []uint8) bool {
	first, ok := canonical(lengths)
	if !ok {
		return false
	}
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		code := first[n]
		first[n]++
		for i := reverse(code, uint(n)); i < 1<<codeBits; i += 1 << n {
			t[i] = uint16(symbol)<<4 | uint16(n)
		}
	}
	return true
}

// fill makes a table. entry returns what a symbol means; the bits of its code
// are added.
func fill(table []uint32, bits uint, lengths []uint8, entry func(symbol int) uint32) bool {
	first, ok := canonical(lengths)
	if !ok {
		return false
	}
	for i := range table[:1<<bits] {
		table[i] = isSpecial
	}
	// The longest code of each prefix gives the size of the prefix's part.
	var longest [1 << litBits]uint8
	next := first
	for _, n := range lengths {
		if n == 0 {
			continue
		}
		code := next[n]
		next[n]++
		if uint(n) > bits {
			p := reverse(code, uint(n)) & (1<<bits - 1)
			longest[p] = max(longest[p], n)
		}
	}
	free := uint32(1) << bits
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		code := reverse(first[n], uint(n))
		first[n]++
		e := entry(symbol) + uint32(n)
		if e&isLiteral == 0 {
			e += uint32(n) << 8
		}
		if uint(n) <= bits {
			for i := code; i < 1<<bits; i += 1 << n {
				table[i] = e
			}
			continue
		}
		prefix := code & (1<<bits - 1)
		part := uint(longest[prefix]) - bits
		if table[prefix]&isLink == 0 {
			if free+1<<part > uint32(len(table)) {
				return false
			}
			table[prefix] = isSpecial | isLink | uint32(part)<<8 | free<<16
			for i := range table[free : free+1<<part] {
				table[free+uint32(i)] = isSpecial
			}
			free += 1 << part
		}
		base := table[prefix] >> 16
		for i := code >> bits; i < 1<<part; i += 1 << (uint(n) - bits) {
			table[base+i] = e
		}
	}
	return true
}

func (t *litTable) build(lengths []uint8) bool {
	ok := fill(t[:], litBits, lengths, func(symbol int) uint32 {
		switch {
		case symbol < 256:
			return isLiteral | 1<<8 | uint32(symbol)<<16
		case symbol == 256:
			return isSpecial | isEnd
		case symbol > 285:
			return isSpecial
		}
		symbol -= 257
		return uint32(lengthBits[symbol]) + uint32(lengthBase[symbol])<<16
	})
	if !ok {
		return false
	}
	t.pair()
	return true
}

// pair joins two literals whose codes fit the table together.
func (t *litTable) pair() {
	for i := 1<<litBits - 1; i >= 0; i-- {
		e := t[i]
		if e&isLiteral == 0 {
			continue
		}
		n := e & 63
		second := t[i>>n]
		// i>>n is below i, so that its entry is not joined yet.
		if m := second & 63; second&isLiteral != 0 && n+m <= litBits {
			t[i] = isLiteral | 2<<8 | (n + m) | e&0xff0000 | second&0xff0000<<8
		}
	}
}

func (t *distTable) build(lengths []uint8) bool {
	return fill(t[:], distBits, lengths, func(symbol int) uint32 {
		if symbol > 29 {
			return isSpecial
		}
		return uint32(distExtra[symbol]) + uint32(distBase[symbol])<<16
	})
}

// fixedTables returns the tables of RFC 1951 section 3.2.6.
var fixedTables = sync.OnceValues(func() (*litTable, *distTable) {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144 || i > 279:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	lit, dist := new(litTable), new(distTable)
	var five [32]uint8
	for i := range five {
		five[i] = 5
	}
	lit.build(lengths[:])
	dist.build(five[:])
	return lit, dist
})

// reverse turns a code round: it is written highest bit first.
func reverse(code uint32, length uint) uint32 {
	return bits.Reverse32(code) >> (32 - length)
}
