package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// ceiling is what a link carries when nothing but a loop writes to it, in MB/s.
type ceiling struct {
	Link    string  `json:"link"`
	Streams int     `json:"streams"`
	MBps    float64 `json:"mb_per_s"`
}

const ceilingMB = 1024

func measureCeilings(ctx context.Context, s *stage) ([]ceiling, error) {
	fmt.Fprintln(os.Stderr, "-- what the links carry")
	var all []ceiling
	for _, link := range []string{"tcp", "unix", "tls"} {
		for _, streams := range []int{1, 2} {
			address := s.lab.B.IP + ":7071"
			if link == "unix" {
				address = unixSocket(s.lab) + ".ceiling"
			}
			mbps, err := measureCeiling(ctx, s, link, address, streams)
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", link, err)
			}
			all = append(all, ceiling{link, streams, mbps})
		}
	}
	return all, nil
}

// measureCeiling is the median of three.
func measureCeiling(ctx context.Context, s *stage, link, address string, streams int) (float64, error) {
	var measured []float64
	for range 3 {
		server := s.lab.B.Command(ctx, s.self, "sink", link, address, strconv.Itoa(streams))
		ready, err := server.StdoutPipe()
		if err != nil {
			return 0, err
		}
		server.Stderr = os.Stderr
		if err := server.Start(); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
			return 0, err
		}
		out, err := s.lab.A.Run(ctx, s.self, "source", link, address, strconv.Itoa(streams))
		if err := errors.Join(err, server.Wait()); err != nil {
			return 0, err
		}
		mbps, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if err != nil {
			return 0, err
		}
		measured = append(measured, mbps)
	}
	return figures.Summarise(measured).Median, nil
}

// sink takes streams and throws away what they carry.
func sink(args []string) error {
	link, address := args[0], args[1]
	streams, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	listener, err := net.Listen(network(link), address)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprint(os.Stdout, ".")
	ended := make(chan error, streams)
	for range streams {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if link == "tls" {
			conn = tls.Server(conn, config)
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 1<<20)
			var err error
			for err == nil {
				_, err = conn.Read(buf)
			}
			if !errors.Is(err, io.EOF) {
				ended <- err
				return
			}
			_, err = conn.Write([]byte{0}) // everything is here: the source's clock stops
			ended <- err
		}()
	}
	var errs []error
	for range streams {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// source fills streams and prints MB/s.
func source(ctx context.Context, args []string) error {
	link, address := args[0], args[1]
	streams, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	began := time.Now()
	ended := make(chan error, streams)
	for range streams {
		go func() { ended <- fill(ctx, link, address, config, ceilingMB/streams) }()
	}
	var errs []error
	for range streams {
		errs = append(errs, <-ended)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%.0f\n", ceilingMB/time.Since(began).Seconds())
	return nil
}

func fill(ctx context.Context, link, address string, config *tls.Config, mb int) error {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, network(link), address)
	if err != nil {
		return err
	}
	defer raw.Close()
	var conn interface {
		io.ReadWriter
		CloseWrite() error
	}
	switch raw := raw.(type) {
	case *net.UnixConn:
		conn = raw
	case *net.TCPConn:
		conn = raw
		if link == "tls" {
			conn = tls.Client(raw, config)
		}
	}
	buf := make([]byte, 1<<20)
	for range mb {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, buf[:1])
	return err
}

func network(link string) string {
	if link == "unix" {
		return "unix"
	}
	return "tcp"
}

// tlsConfig is what transport uses: TLS 1.3, the host's certificates on both ends.
func tlsConfig() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(os.Getenv("MIGRATE_TLS_CERT"), os.Getenv("MIGRATE_TLS_KEY"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(os.Getenv("MIGRATE_TLS_CA"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "10.77.0.2",
	}, nil
}
