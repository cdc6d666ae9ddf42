package tmpfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// attributesLimit bounds what a file has of them, in bytes: they are in its line.
const attributesLimit = lineLimit / 2

// carried tells the attributes that are the files' own. Labels of security modules are of the host's policy.
func carried(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// within is a path of a name in a directory, which is the caller's descriptor.
func within(dir int, base string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, base) }

// readAttributes reads those of path that are carried, nil when there are none. A link at its end is not followed.
func readAttributes(path string) (map[string][]byte, error) {
	list := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var attributes map[string][]byte
	total := 0
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value := make([]byte, 1<<16) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if total += len(name) + n; total > attributesLimit {
			return nil, fmt.Errorf("%w: attributes of more than %d bytes", ErrTooMuch, attributesLimit)
		}
		if attributes == nil {
			attributes = map[string][]byte{}
		}
		attributes[name] = value[:n:n]
	}
	return attributes, nil
}

// writeAttributes gives path what was read. Owner and mode come before: an access list has the mode's bits, too, and a change of
// the owner takes a capability away.
func writeAttributes(path string, attributes map[string][]byte) error {
	for name, value := range attributes {
		if !carried(name) {
			return fmt.Errorf("%w: attribute %q", ErrMalformed, name)
		}
		if err := unix.Lsetxattr(path, name, value, 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}
