# Grape: `make` says what there is to make. docs/development.md says more.

SWIFT ?= swift
PREFIX ?= /usr/local
BINARY = .build/release/grape
# Swift files under version control: what dependencies bring along is not ours to format.
SWIFT_FILES = git ls-files -z '*.swift'

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-unit test-kafka test-python test-golden test-e2e test-examples bench bench-log bench-kafka format lint install clean

help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what is missing (Debian packages); asks sudo unless run as root
	@FULL=$(FULL) scripts/setup.sh

build: setup ## Builds .build/release/grape
	@SWIFT='$(SWIFT)' scripts/build_release.sh

demo: build ## Runs the flights example on a node of its own and checks the result; FULL=1: the whole year; CHAOS=1: workers and node are killed meanwhile
	@FULL=$(FULL) CHAOS=$(CHAOS) GRAPE=$(BINARY) Examples/flights/demo.sh

test: setup ## Runs every test; VERBOSE=1 shows what they say; GRAPE=path: end to end with that binary
	@python3 scripts/test.py $(TEST_OPTIONS)

test-unit: setup ## Runs the tests of the Swift targets
	@python3 scripts/test.py unit $(TEST_OPTIONS)

test-kafka: setup ## Runs the tests of the log on Kafka, and all end-to-end tests on it; GRAPE_KAFKA=host:port: with that cluster
	@python3 scripts/test.py kafka e2e-kafka-all $(TEST_OPTIONS)

test-python: setup ## Runs the tests of the Python SDK
	@python3 scripts/test.py python $(TEST_OPTIONS)

test-golden: setup ## Compares record batches with those of kafka-python
	@python3 scripts/test.py golden $(TEST_OPTIONS)

test-e2e: setup ## Runs the end-to-end tests
	@python3 scripts/test.py e2e $(TEST_OPTIONS)

test-examples: setup ## Runs the tests of the Swift example
	@python3 scripts/test.py examples $(TEST_OPTIONS)

bench: build ## Measures Grape beside the machine's limits and writes docs/benchmarks.md; BENCH=--quick: in a minute
	python3 Benchmarks/bench.py --grape $(BINARY) $(BENCH)

bench-log: setup ## Measures the log alone, as docs/benchmarks.md says; BENCH=--quick: in a minute
	$(SWIFT) build -c release --product GrapeCommitLogBench
	python3 Benchmarks/log_bench.py --grape-bench .build/release/GrapeCommitLogBench $(BENCH)

bench-kafka: build ## Measures nodes on Kafka beside librdkafka alone and writes docs/benchmarks.md; BENCH=--quick: in half a minute
	python3 Benchmarks/kafka_bench.py --grape $(BINARY) --write $(BENCH)

format: ## Formats the Swift files and lists those of the SDK
	@scripts/embed_sdk.py
	@$(SWIFT_FILES) | xargs -0 $(SWIFT) format --in-place --parallel

lint: ## Checks the format of the Swift files, and the list of those of the SDK
	@scripts/embed_sdk.py --check
	@$(SWIFT_FILES) | xargs -0 $(SWIFT) format lint --strict --parallel

install: build ## Installs the binary into PREFIX/bin (/usr/local/bin)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/grape

clean: ## Removes everything that was built
	rm -rf .build .venv Benchmarks/out Benchmarks/apps/swift/.build Examples/flights/stats/.build

TEST_OPTIONS = $(if $(VERBOSE),--verbose) $(if $(GRAPE),--grape $(GRAPE))
