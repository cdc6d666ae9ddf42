package cgroup

import (
	"errors"
	"fmt"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// propertyPrefix marks annotations that become properties of the systemd unit, e.g.
// org.systemd.property.TimeoutStopUSec="uint64 123456789".
const propertyPrefix = "org.systemd.property."

func systemdProperties(annotations map[string]string) ([]systemd.Property, error) {
	var props []systemd.Property
	for key, text := range annotations {
		name, ok := strings.CutPrefix(key, propertyPrefix)
		if !ok {
			continue
		}
		if err := checkProperty(name); err != nil {
			return nil, fmt.Errorf("annotation %s name incorrect: %w", key, err)
		}
		value, err := dbus.ParseVariant(text, dbus.Signature{})
		if err != nil {
			return nil, fmt.Errorf("annotation %s=%s value parse error: %w", key, text, err)
		}
		// systemd documents FooSec, but its bus has only FooUSec.
		if stem, ok := strings.CutSuffix(name, "Sec"); ok && stem != "" && stem[len(stem)-1] >= 'a' {
			name = stem + "USec"
			if value, err = microseconds(value); err != nil {
				return nil, fmt.Errorf("annotation %s=%s value parse error: %w", key, text, err)
			}
		}
		props = append(props, systemd.Property{Name: name, Value: value})
	}
	return props, nil
}

func checkProperty(name string) error {
	if len(name) < 3 {
		return errors.New("too short")
	}
	for _, c := range []byte(name) {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return errors.New("contains non-alphabetic character")
		}
	}
	return nil
}

func microseconds(v dbus.Variant) (dbus.Variant, error) {
	const million = 1_000_000
	switch n := v.Value().(type) {
	case byte:
		return dbus.MakeVariant(uint64(n) * million), nil
	case int16:
		return dbus.MakeVariant(uint64(n) * million), nil
	case uint16:
		return dbus.MakeVariant(uint64(n) * million), nil
	case int32:
		return dbus.MakeVariant(uint64(n) * million), nil
	case uint32:
		return dbus.MakeVariant(uint64(n) * million), nil
	case int64:
		return dbus.MakeVariant(uint64(n) * million), nil
	case uint64:
		return dbus.MakeVariant(n * million), nil
	case float64:
		return dbus.MakeVariant(uint64(n * million)), nil
	}
	return v, errors.New("not a number")
}
