package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"slices"
)

// forwardLogs gives what init logs, as JSON lines, to log until the pipe ends, and closes the pipe.
func forwardLogs(pipe io.ReadCloser, log *slog.Logger) {
	defer pipe.Close()
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		forwardLine(lines.Bytes(), log)
	}
}

func forwardLine(line []byte, log *slog.Logger) {
	fields := map[string]any{}
	if err := json.Unmarshal(line, &fields); err != nil {
		log.Warn("init wrote a broken log line", "line", string(line))
		return
	}
	level := slog.LevelInfo
	if text, ok := fields[slog.LevelKey].(string); ok {
		_ = level.UnmarshalText([]byte(text))
	}
	message, _ := fields[slog.MessageKey].(string)
	var attrs []slog.Attr
	for key, value := range fields {
		if key != slog.LevelKey && key != slog.MessageKey && key != slog.TimeKey {
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	log.LogAttrs(context.Background(), level, message, attrs...)
}
