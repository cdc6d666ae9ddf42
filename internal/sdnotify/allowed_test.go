package sdnotify

import (
	"strings"
	"testing"
)

// FuzzAllowed: of what a container says the service manager hears whole lines, and none that acts on processes or descriptors.
func FuzzAllowed(f *testing.F) {
	f.Add("READY=1\nMAINPID=1\nSTATUS=up\n")
	f.Add("FDSTORE=1\x00\nREADY=1=MAINPID=7\r\nBARRIER=1")
	f.Fuzz(func(t *testing.T, message string) {
		for line := range strings.SplitSeq(allowed(message), "\n") {
			key, _, ok := strings.Cut(line, "=")
			if line != "" && (!ok || !strings.Contains("\n"+message+"\n", "\n"+line+"\n")) {
				t.Errorf("%q is made of %q", line, message)
			}
			for _, never := range []string{"MAINPID", "FDSTORE", "FDSTOREREMOVE", "FDNAME", "BARRIER", "NOTIFYACCESS", "MAINPIDFDID"} {
				if key == never {
					t.Errorf("%q passes", line)
				}
			}
		}
	})
}
