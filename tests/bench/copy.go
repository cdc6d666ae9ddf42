package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// sendFiles streams a directory's files over one connection. io.Copy of a file to a TCP connection is sendfile(2).
func sendFiles(dir, address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if err := sendFile(conn, filepath.Join(dir, entry.Name()), info.Size()); err != nil {
			return err
		}
	}
	return nil
}

type fileHeader struct {
	Name string
	Size int64
}

func sendFile(conn net.Conn, path string, size int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	header, err := json.Marshal(fileHeader{filepath.Base(path), size})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s\n", header); err != nil {
		return err
	}
	_, err = io.Copy(conn, file)
	return err
}

// receiveFiles takes one connection's files into a directory.
func receiveFiles(address, dir string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprint(os.Stdout, ".")
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		header, err := readHeader(conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		file, err := os.Create(filepath.Join(dir, filepath.Base(header.Name)))
		if err != nil {
			return err
		}
		_, err = io.CopyN(file, conn, header.Size)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
}

// readHeader reads byte by byte: what follows the line must stay in the socket, for splice(2).
func readHeader(conn net.Conn) (*fileHeader, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(conn, b); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	header := &fileHeader{}
	return header, json.Unmarshal(line, header)
}
