package checkpoint_test

import (
	"context"
	"log"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/runtime"
)

// A snapshot of a job that goes on running.
func ExampleRun() {
	rt, err := runtime.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := rt.Load("job")
	if err != nil {
		log.Fatal(err)
	}
	err = checkpoint.Run(context.Background(), c, &checkpoint.Options{
		ImagesDir:    "/var/lib/snapshots/job",
		LeaveRunning: true,
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A move: the container is killed only when another host has it.
func ExampleBegin() {
	ctx := context.Background()
	rt, err := runtime.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := rt.Load("web")
	if err != nil {
		log.Fatal(err)
	}
	held, err := checkpoint.Begin(ctx, c, &checkpoint.Options{
		ImagesDir:      "/dev/shm/web",
		TCPEstablished: true,
		NoManifest:     true,
	})
	if err != nil {
		log.Fatal(err) // it runs on
	}
	if err := handOver("/dev/shm/web"); err != nil {
		log.Print(err)
		if err := held.Rollback(ctx); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := held.Commit(ctx); err != nil {
		log.Fatal(err)
	}
}

func handOver(string) error { return nil }
