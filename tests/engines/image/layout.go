package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// The documents of an image layout: https://github.com/opencontainers/image-spec.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		Manifests     []descriptor `json:"manifests"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	document struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       config `json:"config"`
		RootFS       rootFS `json:"rootfs"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	config struct {
		Env        []string
		Cmd        []string
		WorkingDir string `json:",omitempty"`
	}
)

// write writes the archive of an image of one layer.
func write(file, name string, root *tree, c config) (err error) {
	var layer bytes.Buffer
	if err := root.writeTo(&layer); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	c.Env = []string{"PATH=/usr/bin:/bin"}

	layout := newTree()
	layout.addText("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	diff := layout.addBlob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	configuration, err := layout.addDocument("application/vnd.oci.image.config.v1+json", document{
		Architecture: runtime.GOARCH, OS: "linux", Config: c,
		RootFS: rootFS{Type: "layers", DiffIDs: []string{diff.Digest}},
	})
	if err != nil {
		return err
	}
	top, err := layout.addDocument("application/vnd.oci.image.manifest.v1+json", manifest{
		SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json",
		Config: configuration, Layers: []descriptor{diff},
	})
	if err != nil {
		return err
	}
	// podman reads the name from the first of these, containerd from the second.
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
	list, err := json.Marshal(index{SchemaVersion: 2, Manifests: []descriptor{top}})
	if err != nil {
		return err
	}
	layout.addText("index.json", string(list))

	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write image %s: %w", name, err)
	}
	if err := errors.Join(layout.writeTo(f), f.Close()); err != nil {
		return fmt.Errorf("write image %s: %w", name, err)
	}
	return nil
}

func (t *tree) addDocument(mediaType string, value any) (descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return t.addBlob(mediaType, text), nil
}

func (t *tree) addBlob(mediaType string, data []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	t.addText("blobs/sha256/"+sum, string(data))
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(data)}
}
