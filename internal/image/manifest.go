package image

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Versions of manifests. A set whose pages are compressed has the second, so that a program that does not know of it refuses it; one
// that says which set its parent is has the third.
const (
	Version       = 1
	VersionPacked = 2
	VersionBound  = 3
)

// ChunkSize is how much of a page file one digest covers, in bytes.
const ChunkSize = 1 << 20

// maxManifest bounds what is read: a chunk takes some 40 bytes, a compressed one 60, so this is a checkpoint of more than 10 TB, or of
// 1 TB that is compressed.
const maxManifest = 512 << 20

// Manifest is manifest.json. Every file of the set is in it, except logs and statistics.
type Manifest struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	CRIU    string    `json:"criu"`             // version that wrote the set, like 4.2.1
	Kernel  string    `json:"kernel"`           // release it ran on
	Parent  string    `json:"parent,omitempty"` // set below, relative to this directory
	// ParentManifest is the BLAKE3 of the manifest of the set below, in hexadecimal; empty where that has none.
	ParentManifest string `json:"parentManifest,omitempty"`

	Metadata []Metadata `json:"metadata"` // sorted by name
	Pages    []Pages    `json:"pages"`    // sorted by name
}

// Metadata is a file with one digest. It is a cryptographic one: these files tell CRIU what to do, and whoever keeps a
// manifest apart from its images can trust them again later.
type Metadata struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Digest string `json:"blake3"` // 32 bytes in hexadecimal
}

// Pages is a file of memory, digested chunk by chunk with XXH3-128: it finds damage, at memory's speed, while the
// container stands still.
type Pages struct {
	Name    string   `json:"name"`
	Size    int64    `json:"size"`
	Chunk   int64    `json:"chunk"`          // bytes; the last one is shorter
	Digests []string `json:"xxh3"`           // 16 bytes each in hexadecimal
	Frames  []int64  `json:"zstd,omitempty"` // bytes of each chunk where they are compressed, in Name.zst: what is digested then
}

// Origin is what a manifest says about the checkpoint besides its files.
type Origin struct {
	Created  time.Time
	CRIU     string
	Kernel   string
	Compress bool // the page files, as they are digested
}

// Write digests every file of the set in dir and writes its manifest, replacing an older one. When it fails after it has begun to
// compress, the set is lost.
func Write(ctx context.Context, dir string, origin Origin) error {
	m := origin.manifest()
	err := m.describe(ctx, dir, origin.Compress)
	if err == nil {
		err = m.save(dir)
	}
	if err != nil {
		return fmt.Errorf("write manifest of %q: %w", dir, err)
	}
	return nil
}

func (o *Origin) manifest() *Manifest {
	return &Manifest{Version: Version, Created: o.Created.UTC(), CRIU: o.CRIU, Kernel: o.Kernel}
}

func (m *Manifest) describe(ctx context.Context, dir string, compress bool) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	if m.Parent, err = parentOf(dir); err != nil {
		return err
	}
	if m.ParentManifest, err = digestParent(dir, m.Parent); err != nil {
		return err
	}
	if m.ParentManifest != "" {
		m.Version = VersionBound
	}
	m.Metadata, m.Pages = []Metadata{}, []Pages{}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if IsPages(name) && compress {
			packed, err := pack(ctx, dir, name)
			if err != nil {
				return err
			}
			if packed != nil {
				m.Version = max(m.Version, VersionPacked)
				m.Pages = append(m.Pages, *packed)
				continue
			}
		}
		if IsPages(name) {
			size, digests, err := digestChunks(path, ChunkSize)
			if err != nil {
				return err
			}
			m.Pages = append(m.Pages, Pages{Name: name, Size: size, Chunk: ChunkSize, Digests: digests})
			continue
		}
		size, digest, err := digestWhole(path)
		if err != nil {
			return err
		}
		m.Metadata = append(m.Metadata, Metadata{Name: name, Size: size, Digest: digest})
	}
	return nil
}

// list is the sorted names of the set's files. Logs, statistics and sockets are not part of it.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); IsPages(name) || IsPacked(name) || IsMetadata(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m *Manifest) save(dir string) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "."+manifestName)
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return os.Rename(temporary, filepath.Join(dir, manifestName))
}

// readManifest is nil when there is none.
func readManifest(dir string) (*Manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	return parseManifest(text)
}

func parseManifest(text []byte) (*Manifest, error) {
	if len(text) > maxManifest {
		return nil, damaged(manifestName, "larger than %d bytes", maxManifest)
	}
	// The version first: a newer manifest may have fields of other types.
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, damaged(manifestName, "%v", err)
	}
	if head.Version < Version || head.Version > VersionBound {
		return nil, fmt.Errorf("%s: version %d, this program knows %d to %d: %w", manifestName, head.Version, Version, VersionBound, ErrVersion)
	}
	m := &Manifest{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(m); err != nil {
		return nil, damaged(manifestName, "%v", err)
	}
	if err := m.validate(); err != nil {
		return nil, damaged(manifestName, "%v", err)
	}
	return m, nil
}

func (m *Manifest) validate() error {
	if filepath.IsAbs(m.Parent) {
		return fmt.Errorf("absolute parent %q", m.Parent)
	}
	if m.ParentManifest != "" && (m.Version < VersionBound || m.Parent == "" || !isHex(m.ParentManifest, 32)) {
		return fmt.Errorf("bad digest %q of the manifest of parent %q", m.ParentManifest, m.Parent)
	}
	for i, f := range m.Metadata {
		if !IsMetadata(f.Name) || f.Size < 0 || !isHex(f.Digest, 32) {
			return fmt.Errorf("bad entry for %q", f.Name)
		}
		if i > 0 && f.Name <= m.Metadata[i-1].Name {
			return fmt.Errorf("%q is not in order", f.Name)
		}
	}
	for i, f := range m.Pages {
		if !IsPages(f.Name) || f.Size < 0 || f.Chunk <= 0 || f.Chunk > 64<<20 {
			return fmt.Errorf("bad entry for %q", f.Name)
		}
		if i > 0 && f.Name <= m.Pages[i-1].Name {
			return fmt.Errorf("%q is not in order", f.Name)
		}
		if chunks := (f.Size + f.Chunk - 1) / f.Chunk; chunks != int64(len(f.Digests)) {
			return fmt.Errorf("%q has %d digests for %d chunks", f.Name, len(f.Digests), chunks)
		}
		if slices.ContainsFunc(f.Digests, func(d string) bool { return !isHex(d, 16) }) {
			return fmt.Errorf("bad digest of %q", f.Name)
		}
		if f.Frames == nil {
			continue
		}
		if m.Version < VersionPacked {
			return fmt.Errorf("%q is compressed, which version %d has not", f.Name, m.Version)
		}
		if err := f.Index().Check(); err != nil || f.Chunk%pageSize != 0 || f.Size%pageSize != 0 {
			return fmt.Errorf("%q is compressed: %d bytes in chunks of %d: %w", f.Name, f.Size, f.Chunk, err)
		}
	}
	return nil
}

func isHex(text string, size int) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == 2*size && strings.ToLower(text) == text
}
