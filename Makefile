# SPDX-License-Identifier: GPL-3.0-or-later
# A fresh clone needs nothing but this: what is missing is named, then installed.
#   make demo        four validators and an observer on this machine, with your transfer in a block
#   make demo-down   removes them again
#   make test        every layer of tests; `make lint sanity unit artifact network` run one each

SHELL := /bin/sh
PYTHON := python3
export PYTHONPATH := $(CURDIR)/molecule
export PYTHONPYCACHEPREFIX := $(CURDIR)/.holdfast/pycache
export HOLDFAST_STARTED := $(shell date +%s)
LAB := .venv/bin/python -m lab
LAYERS := lint sanity unit artifact network

.PHONY: help demo demo-down test $(LAYERS) setup setup-hosts python clean

help:
	@sed -n 's/^#   //p' Makefile

demo: setup-hosts
	@$(LAB) demo

demo-down: setup-hosts
	@$(LAB) demo-down

test: setup-hosts
	@.venv/bin/python tests/run.py $(LAYERS)

network: setup-hosts
	@.venv/bin/python tests/run.py $@

lint sanity unit artifact: setup
	@.venv/bin/python tests/run.py $@

setup: python
	@$(PYTHON) -m lab.setup

setup-hosts: python
	@$(PYTHON) -m lab.setup hosts

python:
	@command -v $(PYTHON) >/dev/null || { echo "--> missing: python3"; \
	  apt-get -q update && apt-get -qy install --no-install-recommends python3 python3-venv; }

# Also what `make demo-down` leaves for the next time.
clean:
	rm -rf .venv .holdfast
