# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Each installs what is missing through ordinary package managers and says so.

CARGO ?= cargo
PRODUCT := -p inlane-module -p inlane-control -p inlane-sim -p inlane-cli

.PHONY: help build demo test test-vllm bench cases fixtures verify clean deps

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

deps: ## Install what building, running and testing needs
	@scripts/deps.sh build run test

build: ## Build libinlane.so, inlane-control, inlane-sim and inlane (release)
	@scripts/deps.sh build
	$(CARGO) build --release --locked $(PRODUCT)

demo: ## Show the scheduler at work in a real Envoy (KEEP=1 leaves it running)
	@scripts/deps.sh build run
	@$(CARGO) build --release --locked $(PRODUCT)
	@target/release/inlane demo $(if $(KEEP),--keep)

test: ## Format, lints, docs, unit, model and integration tests
	@scripts/deps.sh build run test
	@scripts/test.sh

test-vllm: ## Tests with real vLLM servers on CPU (installs 6 GB the first time)
	@scripts/deps.sh build run
	@$(CARGO) build --release --locked $(PRODUCT)
	@scripts/test-vllm.sh

cases: ## Run acceptance cases: make cases FILES="a.json b.json"
	@scripts/deps.sh build
	@$(CARGO) run --release --locked --quiet -p inlane-integration --bin cases -- \
	  $(or $(FILES),integration/cases/scheduling_cases.json)

fixtures: ## Check recordings of a real engine: make fixtures DIR=...
	@scripts/deps.sh build
	@$(CARGO) run --release --locked --quiet -p inlane-integration --bin fixtures -- \
	  $(or $(DIR),fixtures/vllm)

bench: ## Micro and macro benchmarks; raw output under bench/results
	@scripts/deps.sh build run bench
	@scripts/bench.sh

verify: ## Miri, and the fuzz targets for a while (nightly toolchain)
	@scripts/deps.sh build
	@scripts/verify.sh

clean: ## Remove what was built and fetched
	$(CARGO) clean
	rm -rf .local
