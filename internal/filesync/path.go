package filesync

import "strings"

// A path is relative to the root, its components separated by single slashes; the root is ".".
const (
	rootPath     = "."
	maxPath      = 4095 // PATH_MAX without the NUL
	maxComponent = 255  // NAME_MAX
)

// checkPath refuses what is not a plain relative path. The kernel would refuse to leave the root as well (openat2); this
// gives the error a name, and covers the calls that take one component.
func checkPath(p string) error {
	if p == rootPath {
		return nil
	}
	if p == "" || len(p) > maxPath {
		return refuse("path of %d bytes", len(p))
	}
	if strings.IndexByte(p, 0) >= 0 {
		return refuse("path %q holds a NUL", p)
	}
	for rest := p; ; {
		name, after, more := strings.Cut(rest, "/")
		if name == "" || name == "." || name == ".." {
			return refuse("path %q is not plain and relative", p)
		}
		if len(name) > maxComponent {
			return refuse("path %q has a name of %d bytes", p, len(name))
		}
		if !more {
			return nil
		}
		rest = after
	}
}

// comparePaths orders paths as a walk meets them: a directory before what is in it, names by their bytes. That is the
// order of the strings with the slash as the lowest byte.
func comparePaths(a, b string) int {
	if a == b {
		return 0
	}
	if a == rootPath {
		return -1
	}
	if b == rootPath {
		return 1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

// splitPath returns the directory and the last component. The root has none.
func splitPath(p string) (dir, name string) {
	if p == rootPath {
		return rootPath, ""
	}
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return rootPath, p
}

func joinPath(dir, name string) string {
	if dir == rootPath {
		return name
	}
	return dir + "/" + name
}

// within says whether p is dir or beneath it.
func within(p, dir string) bool {
	return dir == rootPath || p == dir || len(p) > len(dir) && p[len(dir)] == '/' && p[:len(dir)] == dir
}
