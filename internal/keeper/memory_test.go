package keeper

import (
	"slices"
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/pages"
)

func TestCommonRanges(t *testing.T) {
	page := func(start, pages uint64) memory.Range {
		return memory.Range{Start: start * memory.PageSize, Pages: pages}
	}
	for name, test := range map[string]struct {
		a, b, want []memory.Range
	}{
		"nothing":              {nil, []memory.Range{page(1, 4)}, nil},
		"apart":                {[]memory.Range{page(1, 2)}, []memory.Range{page(3, 2)}, nil},
		"one within another":   {[]memory.Range{page(1, 9)}, []memory.Range{page(3, 2)}, []memory.Range{page(3, 2)}},
		"overlapping":          {[]memory.Range{page(1, 4)}, []memory.Range{page(3, 4)}, []memory.Range{page(3, 2)}},
		"one over many":        {[]memory.Range{page(0, 10)}, []memory.Range{page(1, 1), page(9, 5)}, []memory.Range{page(1, 1), page(9, 1)}},
		"many over many":       {[]memory.Range{page(0, 3), page(5, 3)}, []memory.Range{page(2, 4), page(7, 2)}, []memory.Range{page(2, 1), page(5, 1), page(7, 1)}},
		"with the same limits": {[]memory.Range{page(1, 2), page(3, 2)}, []memory.Range{page(1, 2), page(3, 2)}, []memory.Range{page(1, 2), page(3, 2)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := common(test.a, test.b); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := common(test.b, test.a); !slices.Equal(got, test.want) {
				t.Errorf("the other way round: got %v, want %v", got, test.want)
			}
		})
	}
}

// What the peer has of a round counts when that is known, not when the next one begins: that may not come before another break.
func TestRoundThatThePeerHasIsSettledAtOnce(t *testing.T) {
	ledger, err := pages.NewLedger(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ledger.Close() }()
	m := &privateMemory{ledger: ledger, unsettled: true, unsure: ranges{1: {{Start: memory.PageSize, Pages: 1}}}}
	m.Regain(true, nil)
	if m.unsettled || m.unsure != nil {
		t.Errorf("unsettled %t, unsure %v", m.unsettled, m.unsure)
	}
	m = &privateMemory{ledger: ledger, unsettled: true, unsure: ranges{1: {{Start: memory.PageSize, Pages: 1}}}}
	m.Regain(false, nil)
	m.Regain(true, nil) // the link broke again before anything was sent
	if m.unsettled || len(m.unsure) != 1 {
		t.Errorf("unsettled %t, unsure %v: it has to go again", m.unsettled, m.unsure)
	}
}
