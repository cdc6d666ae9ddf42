package transport_test

import (
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/transport"
	"github.com/livemigrate/migrate/transport/transporttest"
)

func TestUnix(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (transport.Dialer, transport.Acceptor) { return dialUnix(t) })
}

func dialUnix(t testing.TB) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	addr, err := transport.ParseAddress("unix://" + filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return meet(t, addr, nil, nil)
}

func meet(t testing.TB, addr transport.Address, d *transport.DialOptions, l *transport.ListenOptions) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	acceptor, err := transport.Listen(addr, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { acceptor.Close() })
	addr, err = transport.ParseAddress(acceptor.Addr())
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := transport.NewDialer(addr, d)
	if err != nil {
		t.Fatal(err)
	}
	return dialer, acceptor
}
