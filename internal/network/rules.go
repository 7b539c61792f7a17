package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The firewall rules, in nft's words. They never change; containers come and
// go in the map.
//
//	table ip shale0 {
//	  map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//	  chain prerouting {
//	    type nat hook prerouting priority dstnat
//	    iifname != "shale0" fib daddr type local dnat to meta l4proto . th dport map @ports
//	  }
//	  chain postrouting {
//	    type nat hook postrouting priority srcnat
//	    ip saddr SUBNET oifname != "shale0" fib saddr type != local masquerade
//	  }
//	  chain forward {
//	    type filter hook forward priority filter
//	    oifname "shale0" iifname != "shale0" ct state != established,related ct status ! dnat drop
//	  }
//	}
//
// The last chain keeps strangers who use this machine as a router away from
// ports that were not published.
func table(device string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: device}
}

func portMap(device string) *nftables.Set {
	return &nftables.Set{
		Table: table(device), Name: "ports", IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
}

// ensureRules makes the table if it is missing: a reload of the machine's own
// firewall may have flushed it.
func (b bridge) ensureRules() error {
	c := &nftables.Conn{}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list firewall tables: %w", permission(err))
	}
	if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == b.Interface }) {
		return nil
	}
	t := c.AddTable(table(b.Interface))
	if err := c.AddSet(portMap(b.Interface), nil); err != nil {
		return fmt.Errorf("add firewall map: %w", err)
	}
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, exprs ...expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: hook, Priority: priority})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: exprs})
	}
	chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, b.destination()...)
	chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, b.masquerade()...)
	chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, b.guard()...)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("load firewall rules: %w", permission(err))
	}
	return nil
}

func removeRules(device string) error {
	c := &nftables.Conn{}
	c.DelTable(table(device))
	if err := c.Flush(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove firewall rules: %w", err)
	}
	return nil
}

// The 32-bit registers 0 and 1; register 1 is the 128-bit one over them.
const (
	register  = 1
	register1 = 9 // NFT_REG32_01
)

func (b bridge) destination() []expr.Any {
	return slices.Concat(
		b.interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq),
		[]expr.Any{
			&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: native(syscall.RTN_LOCAL)},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
			&expr.Payload{DestRegister: register1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: "ports"},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: syscall.AF_INET, RegAddrMin: register, RegProtoMin: register1, Specified: true},
		})
}

func (b bridge) masquerade() []expr.Any {
	subnet := ipNet(b.Subnet)
	return slices.Concat(
		[]expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // source address
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: subnet.Mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: subnet.IP.To4()},
		},
		b.interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq),
		// The gateway's own address is in the subnet too: what the machine
		// says to itself keeps its source.
		[]expr.Any{
			&expr.Fib{Register: register, FlagSADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: native(syscall.RTN_LOCAL)},
			&expr.Masq{},
		})
}

func (b bridge) guard() []expr.Any {
	const (
		known = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
		dnat  = 1 << 5 // IPS_DST_NAT, nf_conntrack_common.h
	)
	none := func(key expr.CtKey, bits uint32) []expr.Any {
		return []expr.Any{
			&expr.Ct{Key: key, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(bits), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: make([]byte, 4)},
		}
	}
	return slices.Concat(
		b.interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq),
		b.interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq),
		none(expr.CtKeySTATE, known),
		none(expr.CtKeySTATUS, dnat),
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
}

// interfaceIs compares the packet's interface with the bridge.
func (b bridge) interfaceIs(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	name := make([]byte, 16) // IFNAMSIZ
	copy(name, b.Interface)
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: op, Register: register, Data: name},
	}
}

// forward enters ports into the map. Only ports that answer on every address
// of the machine are there; the others are the proxy's alone.
func (b bridge) forward(ports []Port, to netip.Addr) error {
	elements := portElements(ports, to)
	if len(elements) == 0 {
		return nil
	}
	for _, e := range elements {
		// What a process that was killed left behind: whoever holds the
		// port's socket is right.
		if err := b.deleteElement(e); err != nil {
			return err
		}
	}
	c := &nftables.Conn{}
	if err := c.SetAddElements(portMap(b.Interface), elements); err != nil {
		return err
	}
	return c.Flush()
}

// unforward takes out what forward entered.
func (b bridge) unforward(ports []Port, to netip.Addr) error {
	var errs []error
	for _, e := range portElements(ports, to) {
		errs = append(errs, b.deleteElement(e))
	}
	return errors.Join(errs...)
}

// deleteElement removes e's key, which may be missing. Each goes alone: one
// that is missing would undo a whole batch.
func (b bridge) deleteElement(e nftables.SetElement) error {
	c := &nftables.Conn{}
	if err := c.SetDeleteElements(portMap(b.Interface), []nftables.SetElement{{Key: e.Key}}); err != nil {
		return err
	}
	if err := c.Flush(); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove port from firewall map: %w", err)
	}
	return nil
}

func portElements(ports []Port, to netip.Addr) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, p := range ports {
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			continue
		}
		protocol := byte(syscall.IPPROTO_TCP)
		if p.Protocol == "udp" {
			protocol = syscall.IPPROTO_UDP
		}
		// Each part of a concatenation fills whole 32-bit registers.
		key := append([]byte{protocol, 0, 0, 0}, portBytes(p.HostPort)...)
		value := append(to.AsSlice(), portBytes(p.ContainerPort)...)
		elements = append(elements, nftables.SetElement{Key: key, Val: value})
	}
	return elements
}

func portBytes(port uint16) []byte {
	return binary.BigEndian.AppendUint16(make([]byte, 0, 4), port)[:4]
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
