# Every target does the set-up it needs: on a fresh Debian 12, `make demo` or `make test` is the first command.

SHELL  := /bin/bash
PREFIX ?= /usr/local
GOTOOL := /opt/migrate/tools

# The Go that scripts/setup installs, where the machine's own is older than go.mod asks for, comes first.
export PATH := /opt/migrate/go/bin:$(PATH):/usr/local/go/bin
# The CRIU that scripts/setup found to work here, which need not be the first on PATH.
export MIGRATE_CRIU ?= $(shell head -n 1 /var/cache/migrate/criu-probe 2>/dev/null)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
# PID 1 of a container or a small machine may reap late; tini -s reaps what the tests' process trees leave.
REAPER  := tini -s --

.PHONY: setup build test lint fuzz bench demo install clean

setup:
	@scripts/setup

build: setup
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/migrate ./cmd/migrate
	CGO_ENABLED=0 go build -trimpath -o bin/workload ./tests/workload

# The end-to-end tests come last and one package at a time: they kill, freeze and measure, and at once they would only meet.
test: build
	$(REAPER) go test -race -p 2 -timeout 15m $$(go list ./... | grep -v /tests/)
	$(REAPER) go test -race -p 1 -timeout 15m ./tests/...

lint:
	@scripts/setup --tools
	@test -z "$$($(GOTOOL)/gofumpt -l . | tee /dev/stderr)" || { echo 'run: $(GOTOOL)/gofumpt -w .' >&2; exit 1; }
	go vet ./...
	$(GOTOOL)/golangci-lint run ./...
	shellcheck scripts/setup scripts/lab scripts/bundle .ci/run

FUZZTIME ?= 20s
# go test fuzzes one function at a time.
fuzz: setup
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file" | while read -r name; do \
			echo "== $$name ($$(dirname "$$file"))"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
		done || exit 1; \
	done

bench: build
	go run ./tests/bench

demo: build
	go run ./tests/demo

install: build
	install -D -m 755 bin/migrate $(DESTDIR)$(PREFIX)/bin/migrate

clean:
	rm -rf bin demo-report.json bench-report.json
