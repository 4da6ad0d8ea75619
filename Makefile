# make deploy, make audit, make test, make clean: see README.md. Everything that is made here lies in .venv, .build and .cache,
# except the simulated fleet, which `make clean` takes down too.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
INVENTORY ?= inventories/demo
PLAYBOOK ?= playbooks/deploy-dify.yml
ARGS ?=
# make deploy fails when a host needed more module executions than this; empty: it only prints them.
MAX_MODULES ?=
# How often make explore runs the property tests, each time with other examples.
ROUNDS ?= 5
# The release of the Python package `ansible` from which the collections of requirements.yml are taken.
COLLECTIONS_PACKAGE := ansible==12.3.0

BIN := .venv/bin
SIMHOST := tests/simhost/simhost
DEMO_FLEET := tests/simhost/fleets/demo.json
MODULES_FILE := .build/module_executions.jsonl
# What the simulated fleet is made with: package=what shows that it is there.
FLEET_PACKAGES := debootstrap=debootstrap debian-archive-keyring=/usr/share/keyrings/debian-archive-keyring.gpg gcc=gcc libc6-dev=/usr/include/stdio.h openssh-client=ssh
# What the unit tests need beside: backups are made of a real server, and compared with what it gives back.
UNIT_PACKAGES := postgresql=/usr/lib/postgresql/*/bin/initdb
DEMO := $(filter inventories/demo,$(patsubst ./%,%,$(INVENTORY:/=)))

# What a user of the collection gets. Folders are in the list because a removed file shows only there.
SOURCES := $(shell find plugins roles playbooks meta docs -not -name '__pycache__' -not -name '*.pyc' 2> /dev/null) \
	galaxy.yml README.md LICENSE CHANGELOG.md requirements.txt requirements.yml bindep.txt changelogs/config.yaml

.PHONY: help setup setup-dev build packages unit-packages engine deploy audit benchmark explore fleet-up fleet-down test test-all test-% clean
help:
	@echo "make deploy [INVENTORY=inventories/demo] [ARGS='--check --diff']   deploy; the demo starts a simulated fleet first"
	echo "make audit  [INVENTORY=inventories/demo]      look, judge and prove without changing anything"
	echo "make test                          every check; or one stage: $(addprefix test-,unit lint docs sanity service diagnosis drivers platform upstream upgrade molecule)"
	echo "make test-all                      the same, and what make test leaves out to be shorter"
	echo "make explore [ROUNDS=5]            the property tests with new examples; make test always takes the same ones"
	echo "make benchmark                     the figures that the project promises: cost of the facts and of upgrades, speed of the planner and of the image's server"
	echo "make setup                         virtual environment, collections, and this collection installed from its archive"
	echo "make clean                         remove all of it, the simulated fleet too"

setup: .build/installed.stamp
setup-dev: setup .venv/dev.stamp
build: .build/installed.stamp

.venv/run.stamp: requirements.txt Makefile
	@PYTHON="$(PYTHON)" tests/tools/host_packages python3-venv=python:ensurepip
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	[ -x $(BIN)/python ] && $(BIN)/python -c '' || { rm -rf .venv; "$(PYTHON)" -m venv .venv; }
	echo "Installing ansible-core into .venv"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/run.stamp
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make test needs Python 3.11 or newer; choose one: make clean, make test PYTHON=python3.12")'
	echo "Installing the test tools into .venv"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.build/collections.stamp: requirements.yml tests/tools/install_collections.py .venv/run.stamp
	@mkdir -p .build
	$(BIN)/python tests/tools/install_collections.py --package $(COLLECTIONS_PACKAGE) --destination .build/collections
	touch $@

# --force: a copy in ~/.ansible/collections would count as installed, and nothing would come to lie here.
.build/installed.stamp: .build/collections.stamp $(SOURCES)
	@rm -rf .build/dist .build/collections/ansible_collections/difyops
	$(BIN)/ansible-galaxy collection build --output-path .build/dist > .build/build.log 2>&1 || { cat .build/build.log; exit 1; }
	$(BIN)/ansible-galaxy collection install --force --offline --collections-path .build/collections .build/dist/*.tar.gz > .build/build.log 2>&1 \
		|| { cat .build/build.log; exit 1; }
	echo "Built and installed $$(basename .build/dist/*.tar.gz)"
	touch $@

packages:
	@tests/tools/host_packages $(FLEET_PACKAGES)

unit-packages:
	@tests/tools/host_packages $(UNIT_PACKAGES)

engine: packages
	@tests/tools/docker_engine up

fleet-up: setup engine
	@$(SIMHOST) up --fleet $(DEMO_FLEET)

fleet-down:
	@$(SIMHOST) down --fleet $(DEMO_FLEET)

audit: PLAYBOOK := playbooks/audit.yml
deploy audit: setup $(if $(DEMO),fleet-up)
	@rm -f $(MODULES_FILE)
	status=0
	PATH="$$PWD/$(BIN):$$PATH" MODULE_COUNTER_FILE="$$PWD/$(MODULES_FILE)" ANSIBLE_CALLBACKS_ENABLED=module_counter \
		ANSIBLE_CALLBACK_PLUGINS="$$PWD/tests/tools/callback_plugins" \
		ansible-playbook -i "$(INVENTORY)" "$(PLAYBOOK)" $(ARGS) || status=$$?
	$(BIN)/python tests/tools/count_modules.py $(MODULES_FILE) $(if $(MAX_MODULES),--max $(MAX_MODULES)) || [ $$status != 0 ] || status=1
	exit $$status

benchmark: setup-dev engine
	@copy="$$($(BIN)/python tests/checks/tree.py)"
	PYTHONPATH="$$PWD/.cache/tree" $(BIN)/python "$$copy/tests/benchmark/plan.py"
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python tests/benchmark/facts.py --check
	"$$(tests/integration/image_service/run --environment)/bin/python" tests/benchmark/image_server.py --check
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python tests/benchmark/upgrade.py --check

explore: setup-dev
	@cd "$$($(BIN)/python tests/checks/tree.py)"
	for ((round = 1; round <= $(ROUNDS); round++)); do
		PYTHONPATH="$(CURDIR)/.cache/tree:$(CURDIR)/.build/collections" "$(CURDIR)/$(BIN)/python" -m pytest -q -m hypothesis --hypothesis-seed=$$RANDOM tests/unit
	done

test: setup-dev engine unit-packages
	@$(BIN)/python tests/checks/run_all.py

test-all:
	@DIFYOPS_ALL=1 $(MAKE) test

test-unit: packages unit-packages
test-diagnosis test-drivers test-platform test-upstream test-upgrade test-molecule: engine
test-%: setup-dev
	@$(BIN)/python tests/checks/run_all.py $*

clean:
	@if [ -x $(SIMHOST) ] && docker info > /dev/null 2>&1; then $(SIMHOST) down --purge; fi
	tests/tools/docker_engine down
	rm -rf .venv .build .ansible .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
