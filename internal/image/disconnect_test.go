package image

import (
	"net/netip"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	sk_opts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	"google.golang.org/protobuf/proto"
)

func TestDisconnectClosesWhatLostItsAddressAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	const established, listening = 1, 10
	records := [][]byte{
		socketRecord(t, 1, established, "10.0.0.5:6379", "10.0.0.9:1000"),
		socketRecord(t, 2, established, "127.0.0.1:6379", "127.0.0.1:1001"),
		socketRecord(t, 3, listening, "0.0.0.0:6379", "0.0.0.0:0"),
		socketRecord(t, 4, established, "10.0.0.6:6379", "10.0.0.9:1002"),
	}
	write(t, dir, "files.img", file(filesMagic, records...))
	closed, err := Disconnect(dir, []netip.Addr{netip.MustParseAddr("10.0.0.5")})
	if err != nil || closed != 1 {
		t.Fatalf("%d closed, %v", closed, err)
	}
	after, err := readRecords(dir, "files.img", filesMagic)
	if err != nil || len(after) != len(records) {
		t.Fatalf("%d records, %v", len(after), err)
	}
	for i, record := range after {
		var was, is fdinfo.FileEntry
		if err := proto.Unmarshal(records[i], &was); err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(record, &is); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // as CRIU has a socket that is closed and shut down
			s := was.GetIsk()
			s.State, s.SrcPort, s.DstPort, s.Shutdown = proto.Uint32(7), proto.Uint32(0), proto.Uint32(0), sk_opts.SkShutdown_BOTH.Enum()
		}
		if !proto.Equal(&was, &is) {
			t.Errorf("socket %d: %v, want %v", i+1, &is, &was)
		}
	}
}
