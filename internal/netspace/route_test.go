package netspace

import "testing"

func TestRuleAsksForBothItsEnds(t *testing.T) {
	for name, rule := range map[string]Rule{
		"neither": {Family: 4},
		"from":    {Family: 4, From: "10.9.0.0/16"},
		"to":      {Family: 6, To: "fd77::/64"},
		"both":    {Family: 4, From: "10.9.0.0/16", To: "10.8.0.0/16"},
		"equal":   {Family: 4, From: "10.9.0.0/16", To: "10.9.0.0/16"},
	} {
		got, err := rule.netlinkRule()
		if err != nil {
			t.Fatal(err)
		}
		var from, to string
		if got.Src != nil {
			from = got.Src.String()
		}
		if got.Dst != nil {
			to = got.Dst.String()
		}
		if from != rule.From || to != rule.To {
			t.Errorf("%s: from %q to %q", name, from, to)
		}
	}
	if _, err := (&Rule{Family: 4, To: "everywhere"}).netlinkRule(); err == nil {
		t.Error("it goes everywhere")
	}
}
