package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logHandler writes what runc's logger writes, because engines read it: containerd and podman take the cause of a failure
// from the last line of level "error". As text:
//
//	time="2026-11-24T14:05:31Z" level=error msg="container does not exist"
//
// and as JSON the same keys in alphabetical order.
type logHandler struct {
	level slog.Level
	json  bool
	attrs []slog.Attr

	mu  *sync.Mutex
	out io.Writer
}

// openLog is what --log, --log-format and --debug ask for. The file stays open until the program ends.
func openLog(path, format string, debug bool) (*slog.Logger, error) {
	h := &logHandler{level: slog.LevelInfo, mu: &sync.Mutex{}, out: os.Stderr}
	if debug {
		h.level = slog.LevelDebug
	}
	switch format {
	case "", "text":
	case "json":
		h.json = true
	default:
		return nil, fmt.Errorf("invalid log-format: %s", format)
	}
	if path != "" {
		// Synchronous: an engine reads it as soon as we have ended, from another host's view of a disk if need be.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
		if err != nil {
			return nil, err
		}
		h.out = f
	}
	return slog.New(h), nil
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.attrs = append(append([]slog.Attr{}, h.attrs...), attrs...)
	return &out
}

// WithGroup is not needed here: the formats are flat.
func (h *logHandler) WithGroup(string) slog.Handler { return h }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr{}, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	if h.level <= slog.LevelDebug {
		attrs = append(attrs, caller(r)...)
	}
	line := textLine(r.Time, levelName(r.Level), r.Message, attrs)
	if h.json {
		var err error
		if line, err = jsonLine(r.Time, levelName(r.Level), r.Message, attrs); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.out.Write(line)
	return err
}

// caller names the code that wrote the line, as runc's log does with --debug. What init wrote has none.
func caller(r slog.Record) []slog.Attr {
	source := r.Source()
	if source == nil || source.Function == "" {
		return nil
	}
	file := filepath.Join(filepath.Base(filepath.Dir(source.File)), filepath.Base(source.File))
	return []slog.Attr{
		slog.String("func", filepath.Base(source.Function)+"()"),
		slog.String("file", file+":"+strconv.Itoa(source.Line)),
	}
}

func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

func jsonLine(at time.Time, level, msg string, attrs []slog.Attr) ([]byte, error) {
	fields := make(map[string]any, len(attrs)+3) // a map is encoded in the order of its keys
	for _, a := range attrs {
		value := a.Value.Resolve().Any()
		if err, ok := value.(error); ok {
			value = err.Error()
		}
		fields[a.Key] = value
	}
	fields["level"], fields["msg"], fields["time"] = level, msg, at.Format(time.RFC3339)
	line, err := json.Marshal(fields)
	return append(line, '\n'), err
}

func textLine(at time.Time, level, msg string, attrs []slog.Attr) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "time=%q level=%s msg=%s", at.Format(time.RFC3339), level, quoted(msg))
	for _, a := range attrs {
		fmt.Fprintf(&b, " %s=%s", a.Key, quoted(a.Value.Resolve().String()))
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// quoted leaves words that need no quotes without.
func quoted(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._/@^+", c)
	}
	if strings.ContainsFunc(s, func(c rune) bool { return !plain(c) }) {
		return strconv.Quote(s)
	}
	return s
}
