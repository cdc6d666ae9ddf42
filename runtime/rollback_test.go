package runtime

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
)

type closer func() error

func (c closer) Close() error { return c() }

func TestWhatIsOpenIsClosedHoweverItEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*rollback, context.Context) error
		want []string
	}{
		"undone":   {(*rollback).run, []string{"delete", "close", "remove"}},
		"finished": {(*rollback).finish, []string{"close"}},
	} {
		t.Run(name, func(t *testing.T) {
			var did []string
			step := func(name string) func(context.Context) error {
				return func(ctx context.Context) error {
					did = append(did, name)
					return ctx.Err()
				}
			}
			r := &rollback{}
			r.add("remove", step("remove"))
			r.addClose("pipe", closer(func() error { did = append(did, "close"); return io.ErrClosedPipe }))
			r.add("delete", step("delete"))
			cancelled, cancel := context.WithCancel(context.Background())
			cancel()
			if err := c.end(r, cancelled); !errors.Is(err, io.ErrClosedPipe) || err.Error() != "close pipe: "+io.ErrClosedPipe.Error() {
				t.Errorf("error is %v", err)
			}
			if !slices.Equal(did, c.want) {
				t.Errorf("it did %v, want %v", did, c.want)
			}
			if err := c.end(r, cancelled); err != nil || len(did) != len(c.want) {
				t.Errorf("a second time: %v, %v", did, err)
			}
		})
	}
}
