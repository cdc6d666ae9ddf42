package podman

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
)

// redis starts a redis-server and waits until it answers.
func (e *engine) redis(name string, options ...string) *container {
	e.Helper()
	testutil.Command(e, "redis-server")
	if err := loadRedis(); err != nil {
		e.Fatal(err)
	}
	c := e.startImage(name, options, image.Redis)
	e.eventually("redis is ready", func() bool { return strings.Contains(c.logs(), "Ready to accept connections") })
	return c
}

// onBridge is the option that puts a container on podman's bridge.
func (e *engine) onBridge() []string {
	e.Helper()
	testutil.Need(e, exists("/usr/lib/cni/bridge"), "the network plugins (containernetworking-plugins)")
	testutil.Command(e, "iptables")
	return []string{"--network", "podman"}
}

// client is one connection to a redis.
type client struct {
	*engine
	conn    net.Conn
	answers *bufio.Reader
}

func (e *engine) dial(address string) *client {
	e.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "6379"), 5*time.Second)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { conn.Close() })
	return &client{engine: e, conn: conn, answers: bufio.NewReader(conn)}
}

// counts asks redis to count, which it must do from where it was.
func (c *client) counts(want int) {
	c.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.Fatal(err)
	}
	if _, err := fmt.Fprint(c.conn, "INCR n\r\n"); err != nil {
		c.Fatal(err)
	}
	answer, err := c.answers.ReadString('\n')
	if err != nil {
		c.Fatal(err)
	}
	c.same("answer", answer, fmt.Sprintf(":%d\r\n", want))
}

func TestContainersMeetOnTheBridge(t *testing.T) {
	e := newEngine(t)
	bridge := e.onBridge()
	c := e.redis("c", append(bridge, "--publish", "127.0.0.1:6380:6379", "--mac-address", "02:00:00:00:be:ef")...)
	address := c.is(".NetworkSettings.IPAddress")
	e.dial(address).counts(1)
	e.same("from another container", e.says("echo PING | nc "+address+" 6379", bridge...), "+PONG\r")
	e.holds("its interface", c.exec("cat", "/sys/class/net/eth0/address"), "02:00:00:00:be:ef")
	e.holds("resolv.conf", c.exec("cat", "/etc/hosts"), address)
}
