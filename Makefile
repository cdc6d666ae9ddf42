# Every target does the set-up it needs: on a fresh Debian 12, `make demo` or `make test` is the first command.

SHELL  := /bin/bash
PREFIX ?= /usr/local
GOTOOL := /opt/migrate/tools

# The Go that scripts/setup installs, where the machine's own is older than go.mod asks for, comes first.
export PATH := /opt/migrate/go/bin:$(PATH):/usr/local/go/bin
# The CRIU that scripts/setup found to work here, which need not be the first on PATH.
export MIGRATE_CRIU ?= $(shell head -n 1 /var/cache/migrate/criu-probe 2>/dev/null)

# Engines take the numbers of a version apart: a bare hash is none.
VERSION := $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo 0.1.0-dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
# PID 1 of a container or a small machine may reap late; tini -s reaps what the tests' process trees leave.
REAPER  := tini -s --

.PHONY: setup build program test test-vm test-strangers test-faults test-identity lint fuzz bench bench-runtime soak soak-runtime soak-memory demo man install dist clean

setup:
	@scripts/setup

# Static: it runs on a peer whatever C library is there, and every start is spared the search for shared ones. Without
# symbols, of which Go's own traces need none: where the kernel has no overlay for it, each start copies the program.
LDFLAGS := -s -w -extldflags -static -X main.version=$(VERSION) -X main.commit=$(COMMIT)

build: setup program
	CGO_ENABLED=0 go build -trimpath -o bin/workload ./tests/workload

# A test that wants the program as it ships, and not a stale one, makes this with a PROGRAM of its own (and -o setup).
PROGRAM ?= bin/migrate
program: setup
	go build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)' -o '$(PROGRAM)' ./cmd/migrate

# The end-to-end tests come last and one package at a time: they kill, freeze and measure, and at once they would only meet.
# They run even when something before has failed: one run is to tell all.
test: build
	@status=0; \
	$(REAPER) go test -race -p 2 -timeout 15m $$(go list ./... | grep -v /tests/) || status=1; \
	$(REAPER) go test -race -p 1 -timeout 25m ./tests/... || status=1; \
	exit $$status

# What this machine's kernel can't show: cgroup v2 alone, on Debian's kernels, in emulated machines.
test-vm: build
	@scripts/setup --vm
	tests/vm/run

# Every fault at every step of a move, in one mode or more: -modes, -steps, -faults, -doc docs/reliability.md.
FAULTS_FLAGS ?=
test-faults: build
	go build -o bin/faults ./tests/faults
	$(REAPER) bin/faults $(FAULTS_FLAGS)

# What a container is besides its memory, moved: a line each, with its figure.
test-identity: build
	cd tests/identity && $(REAPER) go test -count 1 -timeout 30m -identity.long $(if $(V),-v)

lint:
	@scripts/setup --tools
	@test -z "$$($(GOTOOL)/gofumpt -l . | tee /dev/stderr)" || { echo 'run: $(GOTOOL)/gofumpt -w .' >&2; exit 1; }
	go vet ./...
	$(GOTOOL)/golangci-lint run ./...
	shellcheck scripts/setup scripts/dist scripts/lab scripts/bundle scripts/vm tests/vm/run tests/vm/suite tests/vm/host tests/vm/drive tests/identity/testdata/network-hook .ci/run

# Every function that reads what comes from outside, FUZZTIME each, and a table. FUZZ is a regular expression for some of them:
# make fuzz FUZZ='internal/wire|FuzzTarget'. What one does not survive fails the run, and is kept in testdata/fuzz.
FUZZTIME ?= 20s
FUZZ     ?=
fuzz: setup
	go run ./tests/fuzz -time '$(FUZZTIME)' -only '$(FUZZ)'

# Rows of the table by name, runs of each tool in a row: make bench ROWS=gap-2g-idle,stopped-* RUNS=5. What a run leaves of
# processes the reaper takes.
ROWS ?=
RUNS ?= 0
bench: build
	go build -o bin/bench ./tests/bench
	$(REAPER) bin/bench --rows '$(ROWS)' --runs $(RUNS) $(BENCH_FLAGS)

# The containers that are created here are nobody's children: the reaper takes what is left of them.
bench-runtime: build
	go build -o bin/bench-runtime ./tests/bench/runtimes
	$(REAPER) bin/bench-runtime $(BENCH_FLAGS)

# A hundred moves of a redis under load, and twenty containers drained there and back; a short form is part of make test.
SOAK_FLAGS ?=
soak: build
	go build -o bin/soak-moves ./tests/soak/moves
	$(REAPER) bin/soak-moves $(SOAK_FLAGS)

soak-runtime: build
	go build -o bin/soak ./tests/soak
	$(REAPER) bin/soak $(SOAK_FLAGS)

# What make test does a few times: every kind of memory, moved in every mode.
MOVES ?= 50
soak-memory: build
	$(REAPER) go test -count 1 -timeout 60m -run '^TestEveryKindOfMemoryArrives$$' -v ./tests/e2e -moves $(MOVES)

# Programs of other languages, services under their clients' load, and containers that are large, many or confined in some way,
# moved in every mode.
STRANGER_MOVES ?= 6
test-strangers: build
	@scripts/setup --strangers
	MIGRATE_STRANGERS=1 $(REAPER) go test -count 1 -timeout 90m -v -moves $(STRANGER_MOVES) \
		-run '^(TestStrangersMove|TestServicesMove|TestHardships|TestMemoryThatCannotMoveIsNotHarmed)$$' ./tests/e2e

demo: build
	go run ./tests/demo

# Of the commit, for files that come out the same wherever they are made.
man install dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

man: setup
	rm -rf bin/man bin/completion
	go run -trimpath -tags netgo,osusergo,man -ldflags '-X main.version=$(VERSION)' ./cmd/migrate bin

install: build man
	install -D -m 755 bin/migrate $(DESTDIR)$(PREFIX)/bin/migrate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 bin/man/*.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions bin/completion/bash/migrate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions bin/completion/zsh/_migrate
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d bin/completion/fish/migrate.fish

dist: build man
	@scripts/dist $(VERSION) $$(go env GOARCH)

clean:
	rm -rf bin demo-report.json bench-report.json bench-runtime-report.json
