package keeper

import (
	"os"
	"path/filepath"
	"testing"
)

// What a move writes to while it copies would never come to an end, or be torn.
func TestOwnDirectoriesAreFoundInVolumes(t *testing.T) {
	top := t.TempDir()
	places := Places{Root: top + "/run/migrate", Journals: top + "/lib/migrate/journal", Bundles: top + "/lib/migrate/bundles"}
	if err := os.MkdirAll(top+"/lib/migrate/journal", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(top+"/lib", top+"/link"); err != nil {
		t.Fatal(err)
	}
	linked := places
	linked.Journals = top + "/link/migrate/journal"
	for dir, want := range map[string]bool{
		"": true, "/lib": true, "/lib/migrate": true, "/run": true, "/lib/migrate/bundles/web/volumes/1": false, "/lib/migrate-data": false, "/srv": false,
	} {
		for _, p := range []Places{places, linked} {
			found := false
			for _, own := range p.own() {
				found = found || isWithin(own, filepath.Join(top, dir))
			}
			if found != want {
				t.Errorf("%q holds what a move writes to: %v, want %v", dir, found, want)
			}
		}
	}
}
