// Command demo moves a redis under load between two hosts and back, and counts what its client lost: nothing, or it fails.
//
// The flow:
//
//  1. two hosts and a client of scripts/lab; redis in a container on host a, with 200 MB of random values
//  2. the client holds one connection and sends INCR every millisecond, whatever happens
//  3. a -> b over ssh, b -> a over TLS; the phases and the client's latency are printed after each move
//  4. every reply must be the next number, and the values' digest what it was; demo-report.json says so
//
// It runs itself again inside the client's namespaces, as `demo load` and `demo client`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

const (
	labName     = "demo"
	containerIP = "10.77.0.100"
	redisPort   = "6379"
	valueCount  = 3200
	valueBytes  = 64 << 10 // 200 MB in all
	reportFile  = "demo-report.json"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "load":
		err = load(ctx, os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "client":
		err = client(ctx, os.Args[2])
	default:
		err = demo(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	say("two hosts, a and b, and a client c on one network")
	l, err := lab.Up(ctx, labName, nil)
	if err != nil {
		return err
	}
	defer func() {
		if downErr := lab.Down(context.WithoutCancel(ctx), labName); err == nil {
			err = downErr
		}
	}()
	if err := startRedis(ctx, l); err != nil {
		return err
	}
	server, err := l.A.Serve(ctx, "tls://"+l.A.IP+":7440")
	if err != nil {
		return err
	}
	defer server.Stop()
	before, err := digest(ctx, l.A)
	if err != nil {
		return err
	}

	say("the client sends INCR every millisecond over one connection")
	load, err := startClient(ctx, l.C)
	if err != nil {
		return err
	}
	defer load.Kill()
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	first, err := move(ctx, l.A, l.B, "ssh://root@"+l.B.IP)
	if err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	second, err := move(ctx, l.B, l.A, "tls://"+l.A.IP+":7440")
	if err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}

	history, err := load.Finish()
	if err != nil {
		return err
	}
	after, err := digest(ctx, l.A)
	if err != nil {
		return err
	}
	report := newReport([]*moved{first, second}, history, before, after)
	for _, m := range []*moved{first, second} {
		m.print(os.Stdout, history)
	}
	if err := report.write(reportFile); err != nil {
		return err
	}
	report.print(os.Stdout)
	return report.verdict()
}

// startRedis runs the container on host a and fills it.
func startRedis(ctx context.Context, l *lab.Lab) error {
	say("redis in a container on a, with %d MB of random values", valueCount*valueBytes>>20)
	if err := l.A.Bundle(ctx, "redis", "/srv/bundles/web"); err != nil {
		return err
	}
	err := l.A.Start(ctx, "migrate", "run", "--detach", "--log-file", "/srv/web.log", "--bundle", "/srv/bundles/web",
		"--network", "bridge=br0,address="+containerIP+"/24", "web")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = l.C.Run(ctx, self, "load", containerIP+":"+redisPort)
	return err
}

func say(format string, args ...any) { fmt.Printf("-- "+format+"\n", args...) }

// pause waits, or ends early with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func key(i int) string { return "value:" + strconv.Itoa(i) }

func encode(v any) []byte {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // the types are ours and hold nothing that has no JSON
	}
	return append(text, '\n')
}
