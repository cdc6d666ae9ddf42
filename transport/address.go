package transport

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultPort is where `tls://` listens and dials when the address names no port.
const DefaultPort = "7440"

// Scheme is how two hosts reach and trust each other.
type Scheme string

const (
	// TLS is TLS 1.3 over TCP, both sides with certificates of one authority.
	TLS Scheme = "tls"
	// SSH is the system's ssh program, with its configuration, keys and known hosts.
	SSH Scheme = "ssh"
	// Unix is a socket on this host, for processes of one user and root.
	Unix Scheme = "unix"
)

// Address says where a peer is. The zero value is no address; ParseAddress makes valid ones.
type Address struct {
	Scheme Scheme
	User   string // ssh only; empty: what ssh chooses
	Host   string // tls and ssh; empty with tls: every local address, for Listen
	Port   string // tls and ssh; empty with ssh: what ssh chooses
	Path   string // unix only; absolute
}

// ParseAddress parses ssh://[user@]host[:port], tls://host[:port] and unix:///path.
func ParseAddress(s string) (Address, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Address{}, fmt.Errorf("parse address %q: %w", s, errors.Unwrap(err))
	}
	a := Address{Scheme: Scheme(u.Scheme), User: u.User.Username(), Host: u.Hostname(), Port: u.Port(), Path: u.Path}
	if err := a.check(u); err != nil {
		return Address{}, fmt.Errorf("parse address %q: %w", s, err)
	}
	switch a.Scheme {
	case TLS:
		a.Path = ""
		if a.Port == "" {
			a.Port = DefaultPort
		}
	case SSH:
		a.Path = ""
	}
	return a, nil
}

func (a Address) check(u *url.URL) error {
	if u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("want ssh://[user@]host[:port], tls://host[:port] or unix:///path")
	}
	if _, ok := u.User.Password(); ok {
		return errors.New("a password in an address is not supported")
	}
	if a.Port != "" {
		if n, err := strconv.ParseUint(a.Port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("port %s is not between 1 and 65535", a.Port)
		}
	}
	switch a.Scheme {
	case TLS, SSH:
		return a.checkHost()
	case Unix:
		return a.checkPath()
	case "":
		return errors.New("want a scheme: ssh://, tls:// or unix://")
	default:
		return fmt.Errorf("unknown scheme %s: want ssh, tls or unix", a.Scheme)
	}
}

func (a Address) checkHost() error {
	switch {
	case a.Path != "" && a.Path != "/":
		return fmt.Errorf("%s:// takes no path", a.Scheme)
	case a.Scheme == SSH && a.Host == "":
		return errors.New("want a host")
	case a.Scheme == TLS && a.User != "":
		return errors.New("tls:// takes no user: the certificate says who calls")
	case strings.HasPrefix(a.Host, "-") || strings.HasPrefix(a.User, "-"):
		// ssh would take either for an option, such as -oProxyCommand=...
		return errors.New("a host or user cannot begin with a dash")
	}
	return nil
}

// maxUnixPath is the room in sockaddr_un, less the zero at its end.
const maxUnixPath = 107

func (a Address) checkPath() error {
	switch {
	case a.Host != "" || a.User != "":
		return errors.New("unix:// wants three slashes and an absolute path: unix:///run/migrate.sock")
	case a.Path == "" || strings.HasSuffix(a.Path, "/"):
		return errors.New("unix:// wants the path of a socket")
	case len(a.Path) > maxUnixPath:
		return fmt.Errorf("the path is %d bytes long and a socket's can have %d", len(a.Path), maxUnixPath)
	}
	return nil
}

// String returns the address in the form that ParseAddress takes.
func (a Address) String() string {
	if a.Scheme == Unix {
		return "unix://" + a.Path
	}
	host := a.Host
	if a.Port != "" {
		host = net.JoinHostPort(a.Host, a.Port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if a.User != "" {
		host = a.User + "@" + host
	}
	return string(a.Scheme) + "://" + host
}
