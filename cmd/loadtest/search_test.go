package main

import "testing"

func TestSearch(t *testing.T) {
	for name, test := range map[string]struct {
		lowest, highest float64
		capacity        float64 // rates up to it hold
		want            float64 // within searchPrecision below; 0: none
		steps           int     // at most
	}{
		"none holds":             {50, 20000, 10, 0, 1},
		"all hold":               {50, 1000, 1e9, 1000, 6},
		"the limit is the first": {50, 50, 1e9, 50, 1},
		"in between":             {50, 20000, 3333, 3333, 13},
		"just the lowest":        {50, 20000, 50, 50, 7},
		"a power of two":         {50, 20000, 6400, 6400, 14},
		"less than one":          {0.1, 2, 0.73, 0.73, 10},
		"high":                   {1000, 1e6, 777777, 777777, 16},
	} {
		t.Run(name, func(t *testing.T) {
			s, steps := newSearch(test.lowest, test.highest), 1
			for tried := map[float64]bool{s.rate: true}; s.tried(s.rate <= test.capacity); steps++ {
				if tried[s.rate] || s.rate > test.highest || s.rate < test.lowest {
					t.Fatalf("step %d tries %v", steps, s.rate)
				}
				tried[s.rate] = true
			}
			if s.held > test.want || s.held < test.want*(1-searchPrecision) {
				t.Errorf("found %v, want %v", s.held, test.want)
			}
			if steps > test.steps {
				t.Errorf("it took %d steps, want %d at most", steps, test.steps)
			}
		})
	}
}
