package track

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// Kind is a way to find out what a process wrote.
type Kind string

// Kinds, the best first.
const (
	// WriteProtect: a userfaultfd in each process, through which the kernel itself notes and lets through the first write to
	// each page (Linux 6.7). The first Round interrupts one thread of each process for less than a millisecond.
	WriteProtect Kind = "write-protect"
	// SoftDirty: /proc/PID/clear_refs and bit 55 of the page map (CONFIG_MEM_SOFT_DIRTY). The tasks are frozen in each
	// Round, and a huge page is dirty as a whole.
	SoftDirty Kind = "soft-dirty"
	// None: every page is dirty every time. Who keeps digests finds out what changed.
	None Kind = "none"
)

// writeProtectFeatures of a userfaultfd: see writeProtect.
const writeProtectFeatures = uffd.FeatureWPAsync | uffd.FeatureWPUnpopulated

// Probe is the best kind that the kernel has and lets this process use. It asks by doing, not by versions.
func Probe(ctx context.Context) (Kind, error) {
	for _, kind := range []Kind{WriteProtect, SoftDirty} {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if kind.have() == nil {
			return kind, nil
		}
	}
	return None, nil
}

// have tells by an error what is missing.
func (k Kind) have() error {
	switch k {
	case WriteProtect:
		return haveWriteProtect()
	case SoftDirty:
		return pagemap.HaveSoftDirty()
	case None:
		return nil
	default:
		return fmt.Errorf("no kind of tracking is called %q", string(k))
	}
}

func haveWriteProtect() error {
	features, err := uffd.Supported()
	if err != nil {
		return err
	}
	if features&writeProtectFeatures != writeProtectFeatures {
		return errors.New("userfaultfd cannot note writes by itself")
	}
	if err := pagemap.HaveScan(); err != nil {
		return err
	}
	// Yama's 3 forbids to trace even to root, for good (Documentation/admin-guide/LSM/Yama.rst).
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && bytes.HasPrefix(scope, []byte("3")) {
		return errors.New("kernel.yama.ptrace_scope is 3: nobody may trace")
	}
	return nil
}
