package netspace

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

const procSys = "/proc/sys/"

// sysctlPatterns are the kernel parameters that a network namespace has of its own and a container may be given.
func sysctlPatterns() []string {
	return []string{
		"net/ipv4/*", "net/ipv4/conf/*/*", "net/ipv6/*", "net/ipv6/conf/*/*", "net/core/somaxconn", "net/unix/max_dgram_qlen",
	}
}

// validSysctl keeps a key below /proc/sys/net.
func validSysctl(key string) bool {
	parts := strings.Split(key, "/")
	return len(parts) > 2 && parts[0] == "net" && !slices.ContainsFunc(parts, func(p string) bool {
		return p == "" || p == "." || p == ".." || strings.ContainsRune(p, 0)
	})
}

// readSysctls are the parameters in ns that are not as in a new namespace of this host. Those of IPv4 interfaces are all
// recorded: a new namespace has them from its host, and the peer's may differ.
func readSysctls(ns *os.File) (map[string]string, error) {
	fresh, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	var own, usual map[string]string
	if err := netns.Do(fresh, func() error { usual = sysctls(); return nil }); err != nil {
		return nil, err
	}
	if err := netns.Do(ns, func() error { own = sysctls(); return nil }); err != nil {
		return nil, err
	}
	maps.DeleteFunc(own, func(key, value string) bool {
		return !strings.HasPrefix(key, "net/ipv4/conf/") && value == usual[usualKey(key, usual)]
	})
	return own, nil
}

// usualKey is where a new namespace has the value: of an interface that it does not have, that is the default's.
func usualKey(key string, usual map[string]string) string {
	if _, ok := usual[key]; ok {
		return key
	}
	dir, name := filepath.Split(key)
	return filepath.Join(filepath.Dir(filepath.Clean(dir)), "default", name)
}

// sysctls reads those of the calling thread's namespace.
func sysctls() map[string]string {
	all := map[string]string{}
	for _, pattern := range sysctlPatterns() {
		paths, _ := filepath.Glob(procSys + pattern) // it is a good pattern
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o200 == 0 || filepath.Base(path) == "mtu" {
				continue // what follows from others, and what is for reading
			}
			if text, err := os.ReadFile(path); err == nil { // some have no value yet
				all[strings.TrimPrefix(path, procSys)] = strings.TrimSpace(string(text))
			}
		}
	}
	return all
}

// writeSysctls sets those that match and are not so yet, in an order in which none undoes another, and returns what this
// kernel would not have.
func writeSysctls(ns *os.File, all map[string]string, match func(key string) bool) (left []string, err error) {
	keys := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(sysctlRank(a), sysctlRank(b)), cmp.Compare(a, b))
	})
	err = netns.Do(ns, func() error {
		for _, key := range keys {
			if !match(key) {
				continue
			}
			now, err := os.ReadFile(procSys + key)
			if err == nil && strings.TrimSpace(string(now)) == all[key] {
				continue
			}
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				err = os.WriteFile(procSys+key, []byte(all[key]), 0)
			}
			if err != nil {
				left = append(left, fmt.Sprintf("%s = %s: %v", strings.ReplaceAll(key, "/", "."), all[key], err))
			}
		}
		return nil
	})
	return left, err
}

// sysctlRank: to switch forwarding sets other parameters, and what is set for all interfaces is set for each.
func sysctlRank(key string) int {
	switch {
	case key == "net/ipv4/ip_forward" || strings.HasSuffix(key, "/all/forwarding"):
		return 0
	case strings.Contains(key, "/conf/all/"):
		return 1
	case strings.Contains(key, "/conf/default/"):
		return 2
	default:
		return 3
	}
}

// ofInterface tells a parameter of one interface, and of which.
func ofInterface(key string) (name string, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[2] != "conf" || parts[3] == "all" || parts[3] == "default" {
		return "", false
	}
	return parts[3], true
}
