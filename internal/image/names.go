package image

import (
	"regexp"
	"strings"
	"sync"
)

const (
	manifestName    = "manifest.json"
	descriptorsName = "descriptors.json" // runc's name and format
	networkName     = "network.json"     // ours; others overlook it
	notifyName      = "notify.json"      // the same
	layoutName      = "memory.layout"    // of memory that is not in the images; feed.LayoutName
	tmpfsName       = "tmpfs.files"      // for a peer only; tmpfs.SetName
	inventoryName   = "inventory.img"
	parentName      = "parent" // CRIU's symbolic link to the pre-dump below
	packedSuffix    = ".zst"   // of a page file that is compressed
)

// Compiled when used: counted repeats take long, and every start of the program would pay for them.
var (
	pagesPattern = compiled(`^pages-[0-9]{1,10}\.img$`)
	// imagePattern covers every template of CRIU's image-desc.c, like core-12.img, tmpfs-dev-57.tar.gz.img.
	imagePattern = compiled(`^[a-z0-9][a-zA-Z0-9_.-]{0,80}\.img$`)
)

func compiled(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// IsPages tells a file of memory pages, read as CRIU restores, from everything that is verified before.
func IsPages(name string) bool {
	return pagesPattern().MatchString(name)
}

// IsPacked tells a file of memory pages that is compressed. No CRIU reads such a one.
func IsPacked(name string) bool {
	plain, ok := strings.CutSuffix(name, packedSuffix)
	return ok && IsPages(plain)
}

// IsMetadata tells a file that must be whole and right before a restore begins.
func IsMetadata(name string) bool {
	switch name {
	case descriptorsName, networkName, notifyName, layoutName, tmpfsName:
		return true
	}
	return imagePattern().MatchString(name) && !IsPages(name)
}
