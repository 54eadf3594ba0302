# Two commands on a fresh machine: `make demo` runs the main job, `make test` passes the tests. They do all the set-up.

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults check lint format bench mutants taken-out lowest pythons bare lock dashboards pictures docs ansible dist audit clean

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml scripts/setup
	@scripts/setup $(VENV)
	@touch $@

setup: $(READY) ## Make the virtual environment, from the lock with hashes

demo: $(READY) ## Run a simulated PatrolServer and an exporter that watches it; Ctrl-C ends it
	@$(VENV)/bin/patrolserver-exporter demo $(DEMO_FLAGS)

test: $(READY) ## Run all tests that this machine can run
	@scripts/test $(TESTS)

faults: $(READY) ## Run the tests of what goes wrong in full size, more than an hour, and print a table of the promises
	@scripts/faults $(TESTS)

check: $(READY) ## Lint and run the fast tests: under a minute, for every commit
	@scripts/check

lint: $(READY) ## Check types, style and the contracts between the layers
	@scripts/lint

format: $(READY) ## Format the code
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format --quiet .

bench: $(READY) ## Measure, and print ratios against peers that are measured in the same run
	@scripts/bench $(BENCHES)

mutants: $(READY) ## Change the code in small ways, and list the changes that no test notices
	@scripts/mutants $(MODULES)

taken-out: $(READY) ## Take the code that keeps each promise out, and show that its test fails: half an hour
	@$(PYTHON) -m tests.harness.taken_out $(PROMISES)

lowest: $(READY) ## Run the fast tests with the lowest versions that pyproject.toml allows
	@scripts/lowest $(TESTS)

pythons: $(READY) ## Run the fast tests on each Python from 3.11 on that is installed, or that Debian has
	@scripts/pythons $(TESTS)

bare: ## Run the two commands of the README on a bare Debian; takes root and mmdebstrap
	@scripts/bare-machine $(TESTS)

ansible: ## Check the Ansible collection: sanity, units, integration, lint, docs, build
	@scripts/ansible-checks

dashboards: $(READY) ## Write rules, PrometheusRule and dashboards again, from grafana/settings.yml
	@$(PYTHON) -m grafana.dashboards
	@$(PYTHON) -m grafana.alerting

pictures: dashboards ## Redraw docs/pictures; RENDER_DASHBOARD_DIR is a renderer of dashboards, ready to run
	@$(PYTHON) -m grafana.pictures --renderer $${RENDER_DASHBOARD_DIR:?name the folder of the renderer}
	@$(PYTHON) -m tests.harness.page_pictures

docs: $(READY) ## Build the documentation as a site into build/docs, every warning an error
	@scripts/docs

lock: $(READY) ## Resolve the lock again
	@scripts/lock

dist: $(READY) ## Build what is given out into dist/: wheel, source, Debian package, gate, manual, collection, bill of materials, sums
	@scripts/dist

audit: $(READY) ## Ask whether vulnerabilities of the libraries are known; needs the network
	@scripts/sbom --audit

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
