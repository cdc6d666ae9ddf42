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

// Unknown are the names in a spec that this kernel does not know, sorted.
func Unknown(spec *specs.LinuxCapabilities) ([]string, error) {
	if spec == nil {
		return nil, nil
	}
	known, err := supported()
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, name := range slices.Concat(spec.Bounding, spec.Effective, spec.Inheritable, spec.Permitted, spec.Ambient) {
		if _, ok := known[name]; !ok {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown), nil
}

// supported are the kernel's capabilities by the names that specs have for them.
func supported() (map[string]capability.Cap, error) {
	list, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("list capabilities: %w", err)
	}
	known := make(map[string]capability.Cap, len(list))
	for _, c := range list {
		known["CAP_"+strings.ToUpper(c.String())] = c
	}
	return known, nil
}

// New understands the names of a spec. Those that are Unknown are left out, so that one profile serves many kernels.
func New(spec *specs.LinuxCapabilities, log *slog.Logger) (*Sets, error) {
	s := &Sets{log: log}
	if spec == nil {
		return s, nil
	}
	known, err := supported()
	if err != nil {
		return nil, err
	}
	parse := func(names []string) []capability.Cap {
		caps := make([]capability.Cap, 0, len(names))
		for _, name := range names {
			if c, ok := known[name]; ok {
				caps = append(caps, c)
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
			s.log.Warn(fmt.Sprintf("can't raise ambient capability CAP_%s: %v", strings.ToUpper(c.String()), err))
		}
	}
	return nil
}

// MayRaiseLimits tells whether this thread has CAP_SYS_RESOURCE.
func MayRaiseLimits() (bool, error) {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return false, fmt.Errorf("look up own capabilities: %w", err)
	}
	return own.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE), nil
}
