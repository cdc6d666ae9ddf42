package migrate

import (
	"slices"
	"testing"
	"time"
)

func TestExitCodeOfADrainIsThatOfItsWorst(t *testing.T) {
	for want, drains := range map[int][]Drained{
		0: {{}, {Moved: 2}},
		1: {{Moved: 1, Kept: 1}, {Kept: 1, Refused: 1}, {Moved: 1, Skipped: 1, CalledOff: 1}, {Moved: 1, Refused: 1, Skipped: 2, CalledOff: 2}},
		3: {{Moved: 1, Kept: 1, Refused: 1, Unknown: 1}},
		4: {{Refused: 1}, {Moved: 1, Refused: 2}, {Refused: 1, Skipped: 3}},
	} {
		for _, d := range drains {
			if got := d.ExitCode(); got != want {
				t.Errorf("%+v: %d, want %d", d, got, want)
			}
		}
	}
}

// The limit is that of the whole drain, however many move; and who listens hears one at a time.
func TestMovesShareTheBandwidth(t *testing.T) {
	for _, c := range []struct {
		containers, atOnce int
		limit, each        int64
	}{{10, 4, 100, 25}, {2, 4, 100, 50}, {3, 2, 1, 1}, {3, 2, 0, 0}, {0, 2, 100, 100}} {
		d := &drain{options: DrainOptions{AtOnce: c.atOnce, Push: PushOptions{BandwidthLimit: c.limit}}}
		d.containers = make([]*planned, c.containers)
		d.share()
		if got := d.options.Push.BandwidthLimit; got != c.each {
			t.Errorf("%+v: each has %d", c, got)
		}
	}
}

func TestOnceCalledOffNothingIsBegun(t *testing.T) {
	var told []Event
	d := &drain{options: DrainOptions{AtOnce: 2, Push: PushOptions{Event: func(e Event) { told = append(told, e) }}}, began: time.Now()}
	d.containers = []*planned{{id: "a"}, {id: "b"}}
	d.share()
	d.callOff(calledOff)
	d.callOff("another")
	d.each(func(c *planned) { d.check(t.Context(), c) })
	d.each(func(c *planned) { d.move(t.Context(), c) })
	s := d.sum()
	if s.Skipped != 2 || s.CalledOff != 2 || s.ExitCode() != 1 || s.Results[1].Error != "not begun: called off" {
		t.Errorf("got %+v", s)
	}
	if len(told) != 2 || told[0].Event != "result" || told[0].ID == told[1].ID {
		t.Errorf("told %+v", told)
	}
}

func TestADrainThatMakesNoSenseIsRefusedFirst(t *testing.T) {
	host := Host{Root: t.TempDir()}
	for name, c := range map[string]struct {
		ids     []string
		peer    string
		options DrainOptions
	}{
		"all and some":  {[]string{"a"}, "tls://b", DrainOptions{All: true}},
		"none":          {nil, "tls://b", DrainOptions{}},
		"twice":         {[]string{"a", "b", "a"}, "tls://b", DrainOptions{}},
		"not there":     {[]string{"a"}, "tls://b", DrainOptions{}},
		"bad peer":      {nil, "b", DrainOptions{All: true}},
		"less than one": {nil, "tls://b", DrainOptions{All: true, AtOnce: -1}},
	} {
		c.options.Push.Host = host
		if got, err := Drain(t.Context(), c.ids, c.peer, &c.options); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	empty := DrainOptions{All: true, Push: PushOptions{Host: host}}
	if got, err := Drain(t.Context(), nil, "tls://b", &empty); err != nil || len(got.Results) != 0 {
		t.Errorf("a host without containers: %+v, %v", got, err)
	}
}

// A large container that stays is not counted against those that come after it; and without SkipRefused it keeps all here.
func TestThoseThatStayTakeNoMemory(t *testing.T) {
	for _, skip := range []bool{true, false} {
		told := 0
		d := &drain{options: DrainOptions{AtOnce: 2, SkipRefused: skip, Push: PushOptions{Event: func(Event) { told++ }}}}
		d.containers = []*planned{{id: "odd", memory: 100}, {id: "large", memory: 30, besides: 100}, {id: "small", memory: 10, besides: 130}, {id: "last", memory: 5, besides: 140}}
		d.share()
		d.judge(func(c *planned) { // the peer has 40
			if c.id == "odd" || c.besides+c.memory > 40 {
				c.end(Refused, "no", nil)
			}
		})
		var stay []string
		for _, c := range d.containers {
			if c.result != nil {
				stay = append(stay, c.id)
			}
		}
		if want := []string{"odd", "last"}; skip && (!slices.Equal(stay, want) || told != 2) {
			t.Errorf("%v stay, want %v; told %d", stay, want, told)
		}
		if !skip && (d.calledOff() == "" || told != 4) {
			t.Errorf("%v stay, called off: %q; told %d", stay, d.calledOff(), told)
		}
	}
}
