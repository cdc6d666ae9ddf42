package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestContainerThatWouldNotFitItsLimitIsNotFed(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name      string
		v1        bool
		files     map[string]string
		anonymous uint64
		crowded   bool
	}{
		{"v2, forks", false, map[string]string{
			"memory.max": "104857600", "memory.current": "73400320", "memory.stat": "anon 67108864\nactive_file 1048576\n",
		}, 320 * mb, true},
		{"v2, forks with room", false, map[string]string{
			"memory.max": "419430400", "memory.current": "73400320", "memory.stat": "anon 67108864\n",
		}, 320 * mb, false},
		{"v2, nothing shared", false, map[string]string{
			"memory.max": "70000000", "memory.current": "69900000", "memory.stat": "anon 67108864\n",
		}, 64 * mb, false},
		{"v2, no limit", false, map[string]string{
			"memory.max": "max", "memory.current": "73400320", "memory.stat": "anon 67108864\n",
		}, 320 * mb, false},
		{"v1, forks", true, map[string]string{
			"memory.limit_in_bytes": "104857600", "memory.usage_in_bytes": "73400320",
			"memory.stat": "rss 0\nactive_file 73400320\ntotal_rss 67108864\n",
		}, 320 * mb, true},
		{"v1, no limit", true, map[string]string{
			"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "73400320", "memory.stat": "total_rss 67108864\n",
		}, 320 * mb, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			key := ""
			if c.v1 {
				key = "memory"
			}
			charged, err := readCharges(map[string]string{key: dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := charged.room(c.anonymous); errors.Is(err, errCrowded) != c.crowded {
				t.Errorf("%v with %+v", err, charged)
			}
		})
	}
}
