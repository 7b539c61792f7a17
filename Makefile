# What can be made here. `make help` prints the lines that begin with "##".

OUT      ?= bin/shale
GO       ?= go
TAGS     := seccomp netgo osusergo runc_nocriu
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS  := -s -w -linkmode external -extldflags '-static' \
            -X github.com/shaleproject/shale/internal/cli.Version=$(VERSION)
BUILD    := CGO_ENABLED=1 $(GO) build -trimpath -tags '$(TAGS)' -ldflags "$(LDFLAGS)"
TESTTAGS := -tags '$(TAGS)'

.DEFAULT_GOAL := all

## all      build, lint and test
.PHONY: all
all: build lint test

## help     print this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## setup    install what building, testing and the demo need (Debian or Ubuntu, as root)
.PHONY: setup
setup:
	@./scripts/setup

## build    bin/shale, one static binary
.PHONY: build
build:
	@./scripts/setup --build
	$(BUILD) -o $(OUT) ./cmd/shale

## demo     the whole life of an image, on a real application
.PHONY: demo
demo:
	@./scripts/setup --demo
	@$(MAKE) -s build
	@./demo/run

## test     install what the tests need and run them all
.PHONY: test
test:
	@./scripts/setup --test
	$(GO) test $(TESTTAGS) -timeout 20m ./...

## lint     gofmt, go vet, staticcheck
.PHONY: lint
lint:
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -l cmd internal; echo 'run gofmt'; exit 1; }
	$(GO) vet $(TESTTAGS) ./...
	$(GO) run $(TESTTAGS) honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags '$(TAGS)' ./...

## fuzz     each fuzz target for FUZZTIME (default 30s)
FUZZTIME ?= 30s
.PHONY: fuzz
fuzz:
	@./scripts/fuzz $(FUZZTIME)

## bench    ratios against peers and bounds, both sides in one run
.PHONY: bench
bench:
	@./scripts/setup --bench
	@$(MAKE) -s build
	$(GO) run ./bench $(BENCHFLAGS)

## clean    remove what was built
.PHONY: clean
clean:
	rm -rf bin
