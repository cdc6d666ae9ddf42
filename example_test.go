package migrate_test

import (
	"context"
	"fmt"
	"log"

	"github.com/livemigrate/migrate"
)

// Move a container to another host, and say what became of it.
func ExamplePush() {
	result, err := migrate.Push(context.Background(), "web", "ssh://root@host-b", &migrate.PushOptions{
		Event: func(e migrate.Event) {
			if e.Event == "phase" {
				fmt.Println(e.Phase)
			}
		},
	})
	if err != nil {
		log.Fatal(err) // nothing was begun
	}
	switch result.Outcome {
	case migrate.Moved:
		fmt.Printf("away for %.0f ms\n", result.DowntimeMS)
	case migrate.Unknown:
		fmt.Println("frozen here; ask again with migrate.Resolve")
	default:
		fmt.Println("runs on here:", result.Error)
	}
}

// Empty a host, four containers at a time, and name those that stay.
func ExampleDrain() {
	drained, err := migrate.Drain(context.Background(), nil, "ssh://root@host-b", &migrate.DrainOptions{
		All: true, AtOnce: 4, SkipRefused: true,
	})
	if err != nil {
		log.Fatal(err) // nothing was begun
	}
	for _, r := range drained.Results {
		if r.Outcome != migrate.Moved {
			fmt.Println(r.Container, r.Outcome, r.Error)
		}
	}
	fmt.Println(drained.Moved, "moved")
}

// Receive containers over TLS until the context ends.
func ExampleServe() {
	err := migrate.Serve(context.Background(), &migrate.ServeOptions{
		Listen: "tls://:7440",
		Certificates: migrate.Certificates{
			Cert: "/etc/migrate/host.crt", Key: "/etc/migrate/host.key", CA: "/etc/migrate/ca.crt",
		},
		Bound: func(address string) { fmt.Println("listening on", address) },
	})
	if err != nil {
		log.Fatal(err)
	}
}

// End a move that was interrupted between COMMIT and DONE.
func ExampleResolve() {
	outcome, err := migrate.Resolve(context.Background(), "web", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(outcome)
}
