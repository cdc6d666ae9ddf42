package runtime_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/livemigrate/migrate/runtime"
)

// A program that makes containers is also their init: it calls Init before anything else.
func Example() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		runtime.Init()
	}
	ctx := context.Background()
	spec, err := runtime.LoadSpec("/srv/web")
	if err != nil {
		log.Fatal(err)
	}
	plan, err := runtime.Parse("/srv/web", spec, nil)
	if err != nil {
		log.Fatal(err)
	}
	rt, err := runtime.Open(&runtime.Options{Root: "/run/migrate"})
	if err != nil {
		log.Fatal(err)
	}
	c, err := rt.Create(ctx, "web", plan, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Delete(ctx, false); err != nil {
		log.Fatal(err)
	}
}

// Parse needs no root, and says in one line what is wrong.
func ExampleParse() {
	spec := runtime.ExampleSpec()
	spec.Root.Path = "/"
	spec.Process.Args = nil
	_, err := runtime.Parse("/tmp", spec, nil)
	fmt.Println(err)
	// Output: args must not be empty
}
