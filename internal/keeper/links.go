package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/fs"
)

// linksName is a file of the container's state: the names that CRIU has made in the trees while it dumped (image.LinkRemaps). CRIU
// removes them when it rolls back. When the container goes on elsewhere, or CRIU was killed, they would stay in somebody's volume.
const linksName = "links.json"

// noteLinks is for whoever ends the move, when the images may be gone.
func (c *container) noteLinks(images string) error {
	names, err := image.LinkRemaps(images)
	if err != nil {
		return err
	}
	content, err := json.Marshal(names)
	if err != nil {
		return fmt.Errorf("note CRIU's links: %w", err)
	}
	return os.WriteFile(filepath.Join(c.StateDir(), linksName), content, 0o600)
}

// links are the names of the move that the container is marked with.
func (c *container) links() ([]string, error) {
	content, err := os.ReadFile(filepath.Join(c.StateDir(), linksName))
	if errors.Is(err, iofs.ErrNotExist) { // whoever dumped did not get as far
		return image.LinkRemaps(c.order.spoolPath(c.move))
	}
	if err != nil {
		return nil, err
	}
	var names []string
	err = json.Unmarshal(content, &names)
	return names, err
}

// removeLinks removes them. The container's init must be there yet, whatever its state. In a mount that both hosts have the peer has
// removed them, once it has restored the container.
func (c *container) removeLinks(restored bool) {
	names, err := c.links()
	if err != nil {
		c.log.Warn("names that CRIU has made may stay", "error", err)
	}
	for _, name := range names {
		if restored && c.isShared(name) {
			continue
		}
		if err := c.removeLink(name); err != nil {
			c.log.Warn("a name that CRIU has made stays", "path", name, "error", err)
		}
	}
	// None, from now on: the processes may be gone when the next one asks.
	if err := os.WriteFile(filepath.Join(c.StateDir(), linksName), []byte("null"), 0o600); err != nil && len(names) > 0 {
		c.log.Warn("the list of names that CRIU has made stays", "error", err)
	}
}

// forgetLinks is for a container that goes on here: it may be dumped again.
func (c *container) forgetLinks() {
	c.removeLinks(false)
	if err := removeIfThere(filepath.Join(c.StateDir(), linksName)); err != nil {
		c.log.Warn("the list of names that CRIU has made stays", "error", err)
	}
}

// isShared tells whether a path of the container is in a bind mount that does not travel.
func (c *container) isShared(name string) bool {
	for destination := range c.localBinds() {
		if isBeneath(name, destination) {
			return true
		}
	}
	return false
}

func (c *container) removeLink(name string) error {
	dir, err := fs.OpenWithin(fmt.Sprintf("/proc/%d/root", c.InitPid()), path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Unlink(path.Base(name)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}
