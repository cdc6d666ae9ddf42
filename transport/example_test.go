package transport_test

import (
	"context"
	"fmt"
	"log"

	"github.com/livemigrate/migrate/transport"
)

// One side dials, the other accepts. Memory stands for two hosts; elsewhere it is NewDialer and Listen.
func Example() {
	ctx := context.Background()
	dialer, acceptor := transport.Memory()
	hub := transport.NewHub(acceptor, nil)
	defer hub.Close()

	source, err := transport.Connect(ctx, dialer, &transport.ConnectOptions{Lanes: 2})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := hub.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}

	go func() {
		defer source.Close()
		if err := source.Control().Send(ctx, []byte("two pages follow")); err != nil {
			log.Print(err)
		}
		if err := source.Lanes()[1].Send(ctx, []byte("header "), []byte("and page")); err != nil {
			log.Print(err)
		}
	}()
	word, _ := peer.Control().Recv(ctx, nil)
	page, _ := peer.Lanes()[1].Recv(ctx, nil)
	_, err = peer.Control().Recv(ctx, nil)
	fmt.Printf("%s: %s; then %v\n", word, page, err)
	peer.Close()
	// Output: two pages follow: header and page; then EOF
}

// A lost session is reached again by its token; what was under way is for the caller's protocol to ask.
func ExampleConnect_resume() {
	addr, err := transport.ParseAddress("ssh://root@host-b")
	if err != nil {
		log.Fatal(err)
	}
	dialer, err := transport.NewDialer(addr, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	session, err := transport.Connect(ctx, dialer, &transport.ConnectOptions{Lanes: 4, Throttle: transport.NewThrottle(100 << 20)})
	if err != nil {
		log.Fatal(err)
	}
	<-session.Done()
	session, err = transport.Connect(ctx, dialer, &transport.ConnectOptions{Lanes: 4, Token: session.Token(), Resume: true})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
}

// A server over TLS takes callers with a certificate of its own authority.
func ExampleListen() {
	acceptor, err := transport.Listen(transport.Address{Scheme: transport.TLS, Port: transport.DefaultPort}, &transport.ListenOptions{
		Certificates: transport.Certificates{Cert: "host-b.crt", Key: "host-b.key", CA: "ca.crt"},
	})
	if err != nil {
		log.Fatal(err)
	}
	hub := transport.NewHub(acceptor, nil)
	defer hub.Close()
	session, err := hub.Accept(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	fmt.Println(session.Peer(), "calls")
}

// A process that owns no session leads connections to the one that does: it reads the preamble, passes it on, and copies.
func ExampleProxy() {
	route := func(ctx context.Context, acceptor transport.Acceptor, owner func(transport.Token) transport.Dialer) error {
		conn, _, err := acceptor.AcceptConn(ctx)
		if err != nil {
			return err
		}
		preamble, err := transport.ReadPreamble(ctx, conn)
		if err != nil {
			defer conn.Close()
			return transport.WriteAnswer(ctx, conn, err)
		}
		inner, err := owner(preamble.Token).DialConn(ctx)
		if err != nil {
			defer conn.Close()
			return transport.WriteAnswer(ctx, conn, fmt.Errorf("%w: its owner is gone", transport.ErrUnknownToken))
		}
		if err := transport.WritePreamble(ctx, inner, preamble); err != nil {
			return err
		}
		return transport.Proxy(ctx, conn, inner)
	}
	_ = route
}
