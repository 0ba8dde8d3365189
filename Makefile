# Everything happens in .venv, build/ and install/; scripts/setup.sh holds the logic.
#
# Variables: ROS=jazzy|kilted picks the ROS 2 wheels, a sourced ROS 2 is used instead of wheels;
# PYTHON=… picks the interpreter; ARGS=… goes to the program run (pytest, the demo).
# The demo's: INPUT=photo, folder, video or camera number; FOV=horizontal field of view in degrees;
# OUT=folder for the results. LOCKED=1 installs the versions of requirements/lock/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
OUT ?= demo_out

export ROS PYTHON LOCKED

RUN := . scripts/env.sh &&

WORKSHOP := mppe_ros/cli/*,mppe_ros/evaluation/*,mppe_ros/synthetic/*,mppe_ros/training/*

.PHONY: help setup build demo test faults soak lint licences audit coverage clean distclean

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

faults: setup ## run the fault harness and the fuzzed inputs; answers must come within 1 s
	@$(RUN) MPPE_ANSWER_WITHIN_S=1 \
		python -m pytest test/faults test/test_fuzz.py --ignore=test/faults/test_soak.py -q $(ARGS)

soak: setup ## run the node for HOURS=1, look for growth; report and plots in soak_out/
	@$(RUN) python test/faults/soak.py --minutes "$$(awk 'BEGIN { print 60 * $(or $(HOURS),1) }')" $(ARGS)

lint: setup ## run ruff and mypy, refuse licences that forbid too much
	@$(RUN) python -m ruff check . && python -m mypy && python scripts/licences.py >/dev/null

licences: setup ## list the licences of what is installed
	@$(RUN) python scripts/licences.py

audit: setup ## ask the network for known vulnerabilities of what is installed
	@$(RUN) python scripts/audit.py

coverage: setup ## run the tests, say which lines they ran (htmlcov/), want 90 % of the core's
	@$(RUN) python -m pytest --cov --cov-report=html $(ARGS) && \
		python -m coverage report --omit="$(WORKSHOP)" --fail-under=90

clean: ## remove what building and running made, keep .venv
	@rm -rf build install log demo_out soak_out .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	@rm -rf .venv
