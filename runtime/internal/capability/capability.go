// Package capability gives the calling thread the five capability sets of a spec.
package capability

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Sets are the capabilities to apply. The zero value, made from a spec without capabilities, changes nothing.
type Sets struct {
	process capability.Capabilities
	sets    map[capability.CapType][]capability.Cap
	log     *slog.Logger
}

// New understands the names of a spec. Names that this kernel does not know are left out with a warning, so that one
// profile serves many kernels.
func New(spec *specs.LinuxCapabilities, log *slog.Logger) (*Sets, error) {
	s := &Sets{log: log}
	if spec == nil {
		return s, nil
	}
	supported, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("list capabilities: %w", err)
	}
	known := make(map[string]capability.Cap, len(supported))
	for _, c := range supported {
		known["CAP_"+strings.ToUpper(c.String())] = c
	}
	var unknown []string
	parse := func(names []string) []capability.Cap {
		caps := make([]capability.Cap, 0, len(names))
		for _, name := range names {
			if c, ok := known[name]; ok {
				caps = append(caps, c)
			} else if !slices.Contains(unknown, name) {
				unknown = append(unknown, name)
			}
		}
		return caps
	}
	s.sets = map[capability.CapType][]capability.Cap{
		capability.BOUNDING:    parse(spec.Bounding),
		capability.EFFECTIVE:   parse(spec.Effective),
		capability.INHERITABLE: parse(spec.Inheritable),
		capability.PERMITTED:   parse(spec.Permitted),
		capability.AMBIENT:     parse(spec.Ambient),
	}
	if s.process, err = capability.NewPid2(0); err != nil {
		return nil, fmt.Errorf("open capabilities: %w", err)
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		log.Warn("ignoring unknown or unavailable capabilities", "names", unknown)
	}
	return s, nil
}

// ApplyBounding drops what is not in the bounding set. To be called before the user changes: it takes CAP_SETPCAP.
func (s *Sets) ApplyBounding() error {
	if s.process == nil {
		return nil
	}
	s.process.Clear(capability.BOUNDING)
	s.process.Set(capability.BOUNDING, s.sets[capability.BOUNDING]...)
	if err := s.process.Apply(capability.BOUNDING); err != nil {
		return fmt.Errorf("set bounding capabilities: %w", err)
	}
	return nil
}

// Apply sets all five sets. To be called after the user changed, with the capabilities kept across that change.
func (s *Sets) Apply() error {
	if s.process == nil {
		return nil
	}
	s.process.Clear(capability.CAPS | capability.BOUNDS)
	for _, kind := range []capability.CapType{
		capability.EFFECTIVE, capability.PERMITTED, capability.INHERITABLE, capability.BOUNDING,
	} {
		s.process.Set(kind, s.sets[kind]...)
	}
	if err := s.process.Apply(capability.CAPS | capability.BOUNDS); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := capability.ResetAmbient(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	// One that cannot be raised, because it is not inheritable, is a mistake that engines made for years: warn only.
	for _, c := range s.sets[capability.AMBIENT] {
		if err := capability.SetAmbient(true, c); err != nil {
			s.log.Warn("cannot raise ambient capability", "name", c.String(), "error", err)
		}
	}
	return nil
}
