package initmem

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestReleasedProgramIsSmallerAndRunsOn(t *testing.T) {
	code(t) // what reading takes is there before and after
	before := code(t)
	if err := Release(); err != nil {
		t.Fatal(err)
	}
	if after := code(t); after >= before {
		t.Errorf("%d KiB of the program are in memory, before it were %d", after, before)
	}
}

// code is how much of the program's file is in memory and nowhere else, in KiB.
func code(t *testing.T) (total int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		fields := strings.Fields(line)
		if len(fields) >= 5 && strings.Contains(fields[0], "-") {
			ours = len(fields) == 6 && fields[5] == exe && !strings.Contains(fields[1], "w")
		}
		var size int
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &size); n == 1 && ours {
			total += size
		}
	}
	return total
}
