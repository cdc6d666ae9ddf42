// Package line makes one line of a text that may have several, or be a stranger's.
package line

import (
	"strings"
	"unicode"
)

// Of is an error's text for journals, events and answers: of joined errors each would have a line of its own.
func Of(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Printable is a text with "?" for what a terminal may obey: names of processes and files are chosen by whoever runs in a
// container, and all that comes from a peer by the peer. Lines of joined errors become one.
func Printable(text string) string {
	text = strings.NewReplacer("\n", "; ", "\t", " ").Replace(text)
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
