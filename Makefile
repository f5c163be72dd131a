# SPDX-License-Identifier: GPL-3.0-or-later
# A fresh clone needs nothing but this: what is missing is named, then installed.
#   make demo        four validators and an observer on this machine, with your transfer in a block
#   make demo-down   removes them again
#   make test        every layer of tests; each of them alone:
#                    make lint, sanity, unit, artifact, roles, test-vm, network
#   make simulate    consensus against seeded faults in virtual time; SEEDS=10000 runs that many
#   make docs        writes the tables of the roles' READMEs anew from their argument specs

SHELL := /bin/sh
PYTHON := python3
export PYTHONPATH := $(CURDIR)/molecule
export PYTHONPYCACHEPREFIX := $(CURDIR)/.holdfast/pycache
export HOLDFAST_STARTED := $(shell date +%s)
LAB := .venv/bin/python -m lab
LAYERS := lint sanity unit artifact roles vm network
SEEDS := 1000

.PHONY: help demo demo-down test simulate docs $(LAYERS) test-vm setup setup-hosts python clean

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

roles network: setup-hosts
	@.venv/bin/python tests/run.py $@

lint sanity unit artifact: setup
	@.venv/bin/python tests/run.py $@

test-vm: setup
	@.venv/bin/python tests/run.py vm

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
