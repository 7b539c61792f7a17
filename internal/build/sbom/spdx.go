package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// PredicateType is that of SPDX documents in in-toto statements
// (in-toto/attestation, spec/predicates/spdx.md).
const PredicateType = "https://spdx.dev/Document"

// Subject is what a document is about.
type Subject struct {
	Name    string
	Version string // such as a digest; may be empty
	Created time.Time
}

// none is how SPDX says that nothing is known.
const none = "NOASSERTION"

// The parts of an SPDX document (spdx.github.io/spdx-spec/v2.3).
type (
	document struct {
		SPDXID        string         `json:"SPDXID"`
		Version       string         `json:"spdxVersion"`
		DataLicense   string         `json:"dataLicense"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      creation       `json:"creationInfo"`
		Comment       string         `json:"comment,omitempty"`
		Packages      []element      `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	element struct {
		SPDXID           string     `json:"SPDXID"`
		Name             string     `json:"name"`
		Version          string     `json:"versionInfo,omitempty"`
		Supplier         string     `json:"supplier"`
		Download         string     `json:"downloadLocation"`
		FilesAnalyzed    bool       `json:"filesAnalyzed"`
		SourceInfo       string     `json:"sourceInfo,omitempty"`
		LicenseConcluded string     `json:"licenseConcluded"`
		LicenseDeclared  string     `json:"licenseDeclared"`
		LicenseComments  string     `json:"licenseComments,omitempty"`
		Copyright        string     `json:"copyrightText"`
		Purpose          string     `json:"primaryPackagePurpose,omitempty"`
		Refs             []external `json:"externalRefs,omitempty"`
	}
	external struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// SPDX writes the inventory of s as an SPDX 2.3 document in JSON. It depends
// on nothing but its arguments: the namespace, which has to differ between
// documents, comes from their content.
func SPDX(inv Inventory, s Subject) ([]byte, error) {
	const self, root = "SPDXRef-DOCUMENT", "SPDXRef-DocumentRoot-Image"
	doc := document{
		SPDXID: self, Version: "SPDX-2.3", DataLicense: "CC0-1.0", Name: s.Name,
		Creation: creation{
			Created:  s.Created.UTC().Format("2006-01-02T15:04:05Z"), // SPDX wants whole seconds
			Creators: []string{"Organization: shale", "Tool: shale"},
		},
		Packages:      make([]element, 0, len(inv.Packages)+2),
		Relationships: make([]relationship, 0, len(inv.Packages)+2),
	}
	if len(inv.Skipped) > 0 {
		doc.Comment = "Not read: " + strings.Join(inv.Skipped, "; ")
	}
	add := func(e element, from, how string) {
		e.Supplier, e.Download, e.LicenseConcluded, e.LicenseDeclared, e.Copyright = none, none, none, none, none
		doc.Packages = append(doc.Packages, e)
		doc.Relationships = append(doc.Relationships, relationship{from, how, e.SPDXID})
	}
	add(element{SPDXID: root, Name: s.Name, Version: s.Version, Purpose: "CONTAINER"}, self, "DESCRIBES")
	if inv.OS.ID != "" {
		add(element{SPDXID: "SPDXRef-OperatingSystem", Name: inv.OS.ID, Version: inv.OS.Version, Purpose: "OPERATING-SYSTEM"}, root, "CONTAINS")
	}
	for _, p := range inv.Packages {
		add(describe(p), root, "CONTAINS")
	}
	content, err := json.Marshal(doc.Packages)
	if err != nil {
		return nil, fmt.Errorf("write SPDX document: %w", err)
	}
	doc.Namespace = "https://spdx.org/spdxdocs/shale-" + uuid(content, doc.Creation.Created)
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write SPDX document: %w", err)
	}
	return data, nil
}

func describe(p Package) element {
	e := element{
		SPDXID: "SPDXRef-Package-" + p.Kind + "-" + identifier(p.Name) + "-" + hash(p.URL, p.Source)[:16],
		Name:   p.Name, Version: p.Version,
		SourceInfo: "acquired package info from /" + p.Source,
		Refs:       []external{{"PACKAGE-MANAGER", "purl", p.URL}},
	}
	if p.License != "" {
		e.LicenseComments = "declared by the package: " + p.License
	}
	return e
}

// identifier keeps of s what an SPDXID may hold.
func identifier(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, s)
}

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// uuid is a UUID made of content (RFC 9562, version 8).
func uuid(content []byte, more string) string {
	h := sha256.New()
	h.Write(content)
	h.Write([]byte(more))
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
