package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// startupResult compares `run` of a container that ends at once, in ms.
type startupResult struct {
	Runs    int             `json:"runs"`
	Migrate figures.Summary `json:"migrate_ms"`
	Runc    figures.Summary `json:"runc_ms"`
	Ratio   float64         `json:"ratio_of_medians"`
}

func measureStartup(ctx context.Context, s *stage, runs int) (*startupResult, error) {
	fmt.Fprintf(os.Stderr, "-- run true, %d times by each\n", runs)
	if err := s.lab.A.Bundle(ctx, "busybox", "/srv/bundles/true", "true"); err != nil {
		return nil, err
	}
	out, err := s.lab.A.Run(ctx, s.self, "startup", strconv.Itoa(runs))
	if err != nil {
		return nil, err
	}
	result := &startupResult{}
	return result, json.Unmarshal([]byte(out), result)
}

// startup runs on the host itself, so that entering it is not measured. Tools take turns.
func startup(ctx context.Context, args []string) error {
	runs, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const warmUps = 3
	times := map[string][]float64{}
	for n := range runs + warmUps {
		for _, tool := range []string{"migrate", "runc"} {
			cmd := exec.CommandContext(ctx, tool, "run", "--bundle", "/srv/bundles/true", "t"+strconv.Itoa(n))
			cmd.Stderr = os.Stderr
			began := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s run: %w", tool, err)
			}
			if n >= warmUps {
				times[tool] = append(times[tool], figures.MS(time.Since(began)))
			}
		}
	}
	result := startupResult{Runs: runs, Migrate: figures.Summarise(times["migrate"]), Runc: figures.Summarise(times["runc"])}
	result.Ratio = result.Migrate.Median / result.Runc.Median
	return json.NewEncoder(os.Stdout).Encode(&result)
}
