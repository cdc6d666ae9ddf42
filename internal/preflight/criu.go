package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// Version is CRIU's: 10000*major + 100*minor + sublevel, as in the handover's messages.
type Version uint32

// ParseVersion reads what CRIU says of itself; 0 when it cannot be read.
func ParseVersion(text string) Version {
	var major, minor, sublevel uint32
	if n, _ := fmt.Sscanf(text, "%d.%d.%d", &major, &minor, &sublevel); n < 2 { // 4.2 has no sublevel
		return 0
	}
	return Version(10000*major + 100*minor + sublevel)
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100) }

// OlderThan compares releases; images of one sublevel are those of another.
func (v Version) OlderThan(other Version) bool { return v/100 < other/100 }

// CRIU starts this host's, and asks what it can do. The client is the caller's to close; nil when there is none.
func CRIU(ctx context.Context, path string, log *slog.Logger) (client *criu.Client, version string, f Findings) {
	const install = "install CRIU 4.2.1 or newer (scripts/setup does), or name it with --criu"
	located, err := criu.Locate(path)
	if err == nil {
		client, err = criu.Start(ctx, &criu.StartOptions{Path: located, Log: log})
	}
	if err != nil {
		f.add(Blocker, CRIUMissing, install, "%v", err)
		return nil, "", f
	}
	if version, err = client.Version(ctx); err != nil {
		f.add(Blocker, CRIUMissing, install, "%s does not work: %v", located, errors.Join(err, client.Close()))
		return nil, "", f
	}
	return client, version, JudgeCRIU(ParseVersion(version), located)
}

// firstGood is the first CRIU that asks no TCP socket for what Linux 6.16 refuses to tell of it.
const firstGood Version = 40201

// JudgeCRIU tells whether this CRIU can do with this kernel. path is for the text.
func JudgeCRIU(v Version, path string) Findings {
	tells, err := socket.HavePassSec()
	return judgeCRIU(v, path, err != nil || tells)
}

func judgeCRIU(v Version, path string, tells bool) Findings {
	var f Findings
	if v != 0 && v < firstGood && !tells {
		f.add(Blocker, CRIUOld, "install CRIU 4.2.1 or newer (scripts/setup does)", "%s is CRIU %v, which can save no TCP socket on this kernel", path, v)
	}
	return f
}
