package transport

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Address
		text string // String's, when it differs from in
	}{
		{"ssh://host-b", Address{Scheme: SSH, Host: "host-b"}, ""},
		{"ssh://root@host-b:2222/", Address{Scheme: SSH, User: "root", Host: "host-b", Port: "2222"}, "ssh://root@host-b:2222"},
		{"ssh://root@[fd00::2]", Address{Scheme: SSH, User: "root", Host: "fd00::2"}, ""},
		{"tls://host-b", Address{Scheme: TLS, Host: "host-b", Port: "7440"}, "tls://host-b:7440"},
		{"tls://[fd00::2]:1", Address{Scheme: TLS, Host: "fd00::2", Port: "1"}, ""},
		{"tls://:7440", Address{Scheme: TLS, Port: "7440"}, ""},
		{"unix:///run/migrate.sock", Address{Scheme: Unix, Path: "/run/migrate.sock"}, ""},
	} {
		got, err := ParseAddress(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s is %+v, %v; want %+v", c.in, got, err, c.want)
			continue
		}
		text := c.text
		if text == "" {
			text = c.in
		}
		if got.String() != text {
			t.Errorf("%s prints as %s, want %s", c.in, got, text)
		}
		if again, err := ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%s is %+v when parsed again, %v", got, again, err)
		}
	}
}

func TestParseAddressRefusesByName(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "want a scheme",
		"host-b":                              "want a scheme",
		"host-b:7440":                         "want ssh://",
		"http://host-b":                       "unknown scheme http",
		"tls:host-b":                          "want ssh://",
		"tls://host-b:0":                      "port 0",
		"tls://host-b:70000":                  "port 70000",
		"tls://host-b:http":                   "invalid port",
		"tls://host-b/path":                   "takes no path",
		"tls://me@host-b":                     "takes no user",
		"tls://host-b?x=1":                    "want ssh://",
		"ssh://":                              "want a host",
		"ssh://me:secret@host-b":              "password",
		"ssh://-oProxyCommand=reboot":         "dash",
		"ssh://-lroot@host-b":                 "dash",
		"unix://run/migrate.sock":             "three slashes",
		"unix:///":                            "path of a socket",
		"unix:///run/":                        "path of a socket",
		"unix:///" + strings.Repeat("x", 107): "108 bytes long",
	} {
		if a, err := ParseAddress(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, %v; want an error with %q", in, a, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"ssh://root@[fd00::2]:22", "tls://:7440", "unix:///run/s", "tls://%41:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if strings.HasPrefix(a.Host, "-") || strings.HasPrefix(a.User, "-") {
			t.Errorf("%q smuggles an option to ssh: %+v", s, a)
		}
	})
}
