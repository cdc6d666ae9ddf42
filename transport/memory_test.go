package transport_test

import (
	"testing"

	"github.com/livemigrate/migrate/transport"
	"github.com/livemigrate/migrate/transport/transporttest"
)

func TestMemory(t *testing.T) {
	transporttest.Run(t, func(*testing.T) (transport.Dialer, transport.Acceptor) { return transport.Memory() })
}
