package cli

import (
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build"
)

// attestations reads --attest and its shorthands --provenance and --sbom,
// which have the last word on their type.
func (f *buildFlags) attestations() (build.Attest, error) {
	var a build.Attest
	seen := map[string]bool{}
	for _, value := range f.attest {
		fields, err := commaPairs("attest", value)
		if err != nil {
			return a, err
		}
		kind := fields["type"]
		if seen[kind] {
			return a, badValue("attest", value, "duplicate attestation type "+strconv.Quote(kind))
		}
		seen[kind] = true
		delete(fields, "type")
		if err := readAttestation(&a, "attest", value, kind, fields); err != nil {
			return a, err
		}
	}
	for kind, value := range map[string]string{"provenance": f.provenance, "sbom": f.sbom} {
		if value == "" {
			continue
		}
		fields := map[string]string{}
		if on, err := strconv.ParseBool(value); err == nil {
			fields["disabled"] = strconv.FormatBool(!on)
		} else if fields, err = commaPairs(kind, value); err != nil {
			return a, err
		}
		if err := readAttestation(&a, kind, value, kind, fields); err != nil {
			return a, err
		}
	}
	return a, nil
}

// readAttestation reads the fields of one attestation into a.
func readAttestation(a *build.Attest, flag, value, kind string, fields map[string]string) error {
	if kind != "provenance" && kind != "sbom" {
		return badValue(flag, value, `type is "provenance" or "sbom"`)
	}
	on := true
	if disabled, ok := fields["disabled"]; ok {
		off, err := strconv.ParseBool(disabled)
		if err != nil {
			return badValue(flag, value, "disabled is true or false")
		}
		on = !off
		delete(fields, "disabled")
	}
	if kind == "sbom" {
		a.SBOM = on
		for key := range fields {
			return fmt.Errorf("build: option %s of an SBOM: packages are listed by the built-in reader: %w", key, errdefs.ErrNotImplemented)
		}
		return nil
	}
	p, err := provenance(flag, value, fields)
	if a.Provenance = p; !on {
		a.Provenance = nil
	}
	return err
}

func provenance(flag, value string, fields map[string]string) (*build.Provenance, error) {
	p := new(build.Provenance)
	for key, v := range fields {
		bad := false
		switch key {
		case "mode":
			p.Max = v == "max"
			bad = v != "max" && v != "min"
		case "builder-id":
			p.BuilderID = v
		case "reproducible":
			var err error
			p.Reproducible, err = strconv.ParseBool(v)
			bad = err != nil
		case "inline-only":
			var err error
			p.InlineOnly, err = strconv.ParseBool(v)
			bad = err != nil
		case "version":
			if v == "v0.2" {
				return nil, fmt.Errorf("build: provenance of version v0.2: %w", errdefs.ErrNotImplemented)
			}
			bad = v != "v1"
		default:
			return nil, badValue(flag, value, fmt.Sprintf("provenance has no option %q", key))
		}
		if bad {
			return nil, badValue(flag, value, fmt.Sprintf("%s is not %q", key, v))
		}
	}
	return p, nil
}
