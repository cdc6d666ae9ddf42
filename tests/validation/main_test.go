// Package validation runs the OCI's validation suite, the programs of opencontainers/runtime-tools, with migrate and with
// the runc of this machine, side by side: what runc passes must pass.
package validation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/tests/sandbox"
)

func TestMain(m *testing.M) { sandbox.Main(m, build) }

const tools = "github.com/opencontainers/runtime-tools"

// suite is the directory in which build puts the programs, and what they expect where they are run.
func suite(dir string) string { return filepath.Join(dir, "suite") }

// build makes the programs, the one that looks around inside the containers, and the root it runs in.
func build(dir string) error {
	const module = "testdata/suite"
	list, err := output("go", "list", "-C", module, "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, tools+"/validation/...")
	if err != nil {
		return err
	}
	args := append([]string{"build", "-C", module, "-ldflags", "-s -w", "-o", filepath.Join(suite(dir), "programs") + "/"}, strings.Fields(list)...)
	if _, err := output("go", args...); err != nil {
		return err
	}
	if _, err := output("env", "CGO_ENABLED=0", "go", "build", "-C", module, "-o", suite(dir)+"/", tools+"/cmd/runtimetest"); err != nil {
		return err
	}
	source, err := output("go", "list", "-C", module, "-m", "-f", "{{.Dir}}", tools)
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(strings.TrimSpace(source), "rootfs-*.tar.gz"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := os.Symlink(archive, filepath.Join(suite(dir), filepath.Base(archive))); err != nil {
			return err
		}
	}
	return nil
}

func output(name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args[:2]...), " "), err, stderr.String())
	}
	return string(out), nil
}
