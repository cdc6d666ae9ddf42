package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maxDescriptors bounds descriptors.json: three of stdio, and room for what others may write.
const maxDescriptors = 1024

// WriteDescriptors keeps where descriptors 0, 1, ... of the container's init pointed ("pipe:[123]", "/dev/null"), in runc's
// file and format: whoever restores hands these over again.
func WriteDescriptors(dir string, targets []string) error {
	if targets == nil {
		targets = []string{}
	}
	text, err := json.Marshal(targets)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, descriptorsName), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write descriptors: %w", err)
	}
	return nil
}

// Descriptors reads them back.
func (s *Set) Descriptors() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(s.Dir, descriptorsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(descriptorsName, "the file is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var targets []string
	if err := json.Unmarshal(text, &targets); err != nil {
		return nil, damaged(descriptorsName, "%v", err)
	}
	if len(targets) > maxDescriptors {
		return nil, damaged(descriptorsName, "%d entries", len(targets))
	}
	return targets, nil
}

// WriteNetwork keeps what the container is on its network, as JSON. Only we read it.
func WriteNetwork(dir string, network any) error {
	text, err := json.Marshal(network)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, networkName), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write network: %w", err)
	}
	return nil
}

// Network reads it back into network, and tells whether the container had one.
func (s *Set) Network(network any) (bool, error) {
	text, err := os.ReadFile(filepath.Join(s.Dir, networkName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read network: %w", err)
	}
	if err := json.Unmarshal(text, network); err != nil {
		return false, damaged(networkName, "%v", err)
	}
	return true, nil
}

// WriteNotify keeps that the container has a NOTIFY_SOCKET of the runtime, which is a mount that no config names.
func WriteNotify(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, notifyName), []byte("true\n"), 0o600); err != nil {
		return fmt.Errorf("write notify socket: %w", err)
	}
	return nil
}

// Notify tells whether it has.
func (s *Set) Notify() (bool, error) {
	_, err := os.Stat(filepath.Join(s.Dir, notifyName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for notify socket: %w", err)
	}
	return true, nil
}
