package criu

import (
	"bufio"
	"os"
	"regexp"
	"strings"
)

// maxLog bounds how much of a log is read for a cause: at level 4 a big tree writes tens of megabytes.
const maxLog = 64 << 20

// Cause is the line of CRIU's log that explains a failure: the first error that is not a consequence or a complaint that
// comes with every run. Empty when there is none.
func Cause(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	// How CRIU marks an error: "(00.012345) Error (criu/sk-inet.c:191): inet: Connected TCP socket, ...", with the pid of a
	// restored task before the word: "(00.1)      7: Error (...)".
	errorLine := regexp.MustCompile(`Error \([^)]*\): (.*)`)
	var late string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for read := 0; lines.Scan() && read < maxLog; read += len(lines.Bytes()) {
		match := errorLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		text := strings.TrimSpace(match[1])
		switch {
		case isNoise(text):
		case isConsequence(text):
			if late == "" {
				late = text
			}
		default:
			return text
		}
	}
	return late
}

// isNoise: without CAP_SYS_RESOURCE every log starts with the one; a dump over a parent has the other for whatever that has no
// pages of (shared memory, over our claims), and writes all of it.
func isNoise(text string) bool {
	return strings.HasPrefix(text, "rlimit: Can't setup RLIMIT_NOFILE") || strings.Contains(text, "No parent image found, though parent directory is set")
}

// isConsequence: says that something failed, not what. Kept in case nothing better follows.
func isConsequence(text string) bool {
	for _, s := range []string{"Dumping FAILED", "Restoring FAILED", "Pre-dumping FAILED", "exited, status="} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}
