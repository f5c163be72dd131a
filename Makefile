# SPDX-License-Identifier: GPL-3.0-or-later
# A fresh clone needs nothing but this: what is missing is named, then installed.
#   make demo        four validators and an observer on this machine, with your transfer in a block
#   make demo-down   removes them again
#   make test        every layer of tests; each of them alone:
#                    make lint, sanity, unit, artifact, roles, loopback, test-faults, test-vm, network
#   make bundle      signed bundles of the node to carry over an air gap; PLATFORMS="..." OUTPUT=FOLDER
#   make image       the node as a container image, on Alpine; ARCHIVE=FILE writes it there, too
#   make simulate    consensus against seeded faults in virtual time; SEEDS=10000 runs that many
#   make docs        writes the tables of the roles' READMEs anew from their argument specs

SHELL := /bin/sh
# A distribution compiles its Python with profiles of its use. Version managers mostly do not, and
# theirs computes half as long again.
PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
export PYTHONPATH := $(CURDIR)/molecule
export PYTHONPYCACHEPREFIX := $(CURDIR)/.holdfast/pycache
export HOLDFAST_STARTED := $(shell date +%s)
LAB := .venv/bin/python -m lab
LAYERS := sanity lint artifact images unit roles loopback faults vm network
SEEDS := 1000
PLATFORMS :=
OUTPUT := $(CURDIR)/.holdfast/bundles
BASE :=
ARCHIVE :=

.PHONY: help demo demo-down test test-platforms simulate bundle image docs $(LAYERS) \
  test-vm test-faults setup setup-hosts python clean

help:
	@sed -n 's/^#   //p' Makefile

demo: setup-hosts
	@$(LAB) demo

demo-down: setup-hosts
	@$(LAB) demo-down

test: setup-hosts
	@.venv/bin/python tests/run.py $(LAYERS)

simulate: setup
	@.venv/bin/holdfast-node simulate --seeds $(SEEDS)

docs: setup
	@.venv/bin/python tests/unit/roles/test_documented.py

bundle: setup
	@$(LAB) run ansible-playbook -i localhost, holdfast.chain.bundle \
	  -e '{"bundle_directory": "$(abspath $(OUTPUT))"}' -e '{"bundle_platforms": "$(PLATFORMS)"}'

image: setup-hosts
	@.venv/bin/python -m lab.node_image $(if $(BASE),--base "$(BASE)") $(if $(ARCHIVE),--archive "$(ARCHIVE)")

images roles network: setup-hosts
	@.venv/bin/python tests/run.py $@

# Also what `make test` leaves out since another platform shows the same; see docs/platforms.md.
test-platforms: setup-hosts
	@HOLDFAST_PLATFORMS=all .venv/bin/python tests/run.py roles

lint sanity unit artifact loopback: setup
	@.venv/bin/python tests/run.py $@

test-vm test-faults: setup
	@.venv/bin/python tests/run.py $(@:test-%=%)

setup: python
	@$(PYTHON) -m lab.setup

setup-hosts: python
	@$(PYTHON) -m lab.setup hosts

python:
	@command -v $(PYTHON) >/dev/null || { echo "--> missing: python3"; \
	  apt-get -q update && apt-get -qy install --no-install-recommends python3 python3-venv; }

# Also what `make demo-down` leaves for the next time.
clean:
	@[ ! -x .venv/bin/python ] || .venv/bin/python -m lab.vm down
	rm -rf .venv .holdfast
