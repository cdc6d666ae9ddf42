package restore_test

import (
	"context"
	"log"

	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// A job goes on from its last snapshot.
func ExampleRun() {
	rt, err := runtime.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	spec, err := runtime.LoadSpec("/srv/job")
	if err != nil {
		log.Fatal(err)
	}
	plan, err := runtime.Parse("/srv/job", spec, nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := restore.Run(context.Background(), rt, "job", plan, nil, &restore.Options{ImagesDir: "/var/lib/snapshots/job"})
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%s runs as %d", c.ID(), c.InitPid())
}

// The other half of a move: everything is ready, and waits for the word.
func ExampleBegin() {
	ctx := context.Background()
	rt, err := runtime.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	spec, err := runtime.LoadSpec("/srv/web")
	if err != nil {
		log.Fatal(err)
	}
	plan, err := runtime.Parse("/srv/web", spec, nil)
	if err != nil {
		log.Fatal(err)
	}
	o := &restore.Options{ImagesDir: "/dev/shm/web", TCPEstablished: true}
	place, err := restore.Prepare(ctx, rt, "web", plan, nil, o)
	if err != nil {
		log.Fatal(err)
	}
	defer place.Discard(ctx) // without effect once the container runs
	gate, err := restore.Begin(ctx, place, o)
	if err != nil {
		log.Fatal(err)
	}
	if !toldToGoOn() {
		if err := gate.Abort(ctx); err != nil {
			log.Print(err)
		}
		return
	}
	if _, err := gate.Release(ctx); err != nil {
		log.Print(err)
	}
}

func toldToGoOn() bool { return true }
