# Development tasks. `make verify` is exactly what CI runs, and each of its steps that can
# be fixed automatically has a counterpart under `make fix`.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Steps run one at a time: each uses all cores already, and the output stays readable.
.NOTPARALLEL:

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
MODULES := $(shell find . -name go.mod -not -path './.*' | xargs -n 1 dirname | sort)
LINT_VERSION := v2.15.0
LINT := $(CURDIR)/bin/golangci-lint-$(LINT_VERSION)

# Build, generators and lint share these flags, so that dependencies are compiled only once.
STATIC := CGO_ENABLED=0 GOFLAGS='$(strip $(shell go env GOFLAGS) -trimpath)'

# What `make bench` measures: make bench BENCH=Create PKG=./pkg/registry/...
BENCH ?= .
COUNT ?= 6
PKG ?= ./pkg/... ./test/api

# Flags of the server that `make run` starts: make run ARGS='--secure-port=7443'
ARGS ?=

# What `make load` sends: make load LOAD='--rate=500 --duration=1m'
LOAD ?= --rate=200 --duration=10s --watchers=20

# How many faults `make faults` has, and of which seed: make faults FAULTS='-seed=7 -faults=100'
FAULTS ?= -faults=250

# What `make attack` and `make fuzz` run: make attack ATTACK='TestAttack/lists'; make fuzz FUZZTIME=10s
ATTACK ?= .
FUZZTIME ?= 1m

in-each-module = for dir in $(MODULES); do (cd "$$dir" && $(1)); done

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the server and the load generator as static binaries: bin/apiserver, bin/loadtest
	@echo "==> build bin/apiserver bin/loadtest $(VERSION)"
	@$(STATIC) go build -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/apiserver ./cmd/loadtest

.PHONY: run
run: build ## build and run the server, with its data in ./berth.data
	@exec bin/apiserver $(ARGS)

.PHONY: load
load: build ## generate load on the server of `make run`, with a report in berth.data/load.html
	@test -f berth.data/kubeconfig || { echo "no server has run here: start one with \`make run\` in another shell" >&2; exit 1; }
	@bin/loadtest --kubeconfig=berth.data/kubeconfig --output=text,html=berth.data/load.html $(LOAD)

# A module of its own builds the server from sources that Go's cache of results does not watch.
.PHONY: test
test: ## run all tests of all modules with the race detector
	@$(call in-each-module,go test -race -timeout 15m $$([ "$$dir" = . ] || echo -count=1) ./...)

.PHONY: check
check: ## run go vet and the shorter tests without the race detector, for while you work
	@go vet ./...
	@go test -short ./...

.PHONY: bench
bench: ## run the benchmarks six times each, for benchstat
	@go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(PKG)

.PHONY: kubectl
kubectl: ## run the tests of kubectl with its two releases before the one that `make test` has
	@test/kubectl.sh

# Without the race detector, whose memory and times are not the server's.
.PHONY: consumers
consumers: ## let Prometheus, CoreDNS, vmagent, gRPC and client-go find what is registered, and print a table of it
	@cd test/consumers && go test -count=1 -timeout 1h -args -programs

# In the package's directory go test shows each row of the table when its attack has ended.
.PHONY: attack
attack: ## attack the server for half an hour, and print a table of the results
	@cd test/attack && go test -count=1 -timeout 2h -run '$(ATTACK)' -args -long

# In the module's directory go test shows each fault when it is over.
.PHONY: faults
faults: ## make servers, etcd and the links between them fail, while clients write and watch
	@cd test/faults && go test -count=1 -timeout 4h -v -args -clocks -again $(FAULTS)

# go test fuzzes one target of one package at a time.
.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME, a minute by default
	@grep -rl --include='*_test.go' '^func Fuzz' ./cmd ./pkg ./test | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$$file"); do \
			echo "==> $$target in $${file%/*}"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(FUZZTIME)' "$${file%/*}"; \
		done; \
	done

.PHONY: dist
dist: ## make the archives of a release with checksums in ./dist
	@echo "==> archives of $(VERSION) in ./dist"
	@deploy/dist.sh $(VERSION) dist

.PHONY: image
image: ## build the container image berth:VERSION
	docker build --file deploy/Dockerfile --build-arg VERSION=$(VERSION) --tag berth:$(VERSION) .

.PHONY: up
up: ## start etcd and the server in containers; copies token, CA and kubeconfig to ./compose.data
	@VERSION=$(VERSION) deploy/up.sh

.PHONY: failover
failover: ## kill servers and members of etcd of docker-compose.ha.yml, and show what clients notice
	@deploy/failover.sh

.PHONY: down
down: ## stop the containers, keeping their volumes
	@deploy/compose.sh down

.PHONY: verify
verify: verify-mod verify-format verify-lint verify-generated build verify-test verify-dist verify-image ## run everything that CI runs
	@echo "==> verified"

.PHONY: verify-mod
verify-mod: ## check that go.mod and go.sum are tidy
	@echo "==> go.mod and go.sum are tidy"
	@$(call in-each-module,go mod tidy -diff)

.PHONY: verify-format
verify-format: $(LINT) ## check that the code is formatted
	@echo "==> the code is formatted"
	@$(LINT) fmt --diff

.PHONY: verify-lint
verify-lint: $(LINT) ## run go vet and the linters of .golangci.yml
	@echo "==> go vet and linters"
	@$(call in-each-module,$(STATIC) $(LINT) run --allow-parallel-runners --config '$(CURDIR)/.golangci.yml')

.PHONY: verify-generated
verify-generated: ## check that generated files are up to date
	@echo "==> generated files are up to date"
	@$(STATIC) test/generated.sh

.PHONY: verify-test
verify-test: ## run all tests, including import rules, conformance cases and the documents' examples
	@echo "==> tests with the race detector: packages, import rules, conformance cases, examples of the documents"
	@$(MAKE) --no-print-directory test

.PHONY: verify-dist
verify-dist: ## check that the archive of this platform is complete and the same twice
	@echo "==> the archive of a release"
	@test/dist.sh

.PHONY: verify-image
verify-image: ## check that the image and docker-compose.yml work, if Docker is available
	@echo "==> the image and docker-compose.yml"
	@VERSION=$(VERSION) test/compose.sh

# Some minutes, which each change need not wait for.
.PHONY: ha-test
ha-test: ## check docker-compose.ha.yml and its failover, if Docker is available
	@VERSION=$(VERSION) test/ha.sh

.PHONY: fix
fix: fix-mod fix-generated fix-format fix-lint ## fix what can be fixed automatically of what verify checks

.PHONY: fix-mod
fix-mod: ## tidy go.mod and go.sum
	@$(call in-each-module,go mod tidy)

.PHONY: fix-generated
fix-generated: ## regenerate generated files
	@$(call in-each-module,$(STATIC) go generate ./...)

.PHONY: fix-format
fix-format: $(LINT) ## format the code
	@$(LINT) fmt

.PHONY: fix-lint
fix-lint: $(LINT) ## let the linters fix what they can
	@$(call in-each-module,$(STATIC) $(LINT) run --fix --allow-parallel-runners --config '$(CURDIR)/.golangci.yml')

$(LINT):
	@echo "==> build golangci-lint $(LINT_VERSION)"
	@GOBIN='$(CURDIR)/bin' go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv bin/golangci-lint '$@'
