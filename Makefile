# `make run` and `make test`. CONTRIBUTING.md explains the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The extras of `make run`, separated by commas. Those of an earlier one stay, and follow their lock.
EXTRAS = report
comma := ,
CHOSEN := $(subst $(comma), ,$(EXTRAS))
UNKNOWN := $(filter-out alerts postgres report,$(CHOSEN))
ifneq ($(UNKNOWN),)
$(error There is no extra $(UNKNOWN): choose from alerts, postgres and report, as in make run EXTRAS=report,alerts)
endif
EXTRA_STAMPS = $(sort $(CHOSEN:%=$(VENV)/extra-%.stamp) $(wildcard $(VENV)/extra-*.stamp))
# The copy with which `pip install .` replaces the editable installation: it stays as it is when this folder changes.
COPY = $(wildcard $(VENV)/lib/python*/site-packages/aiseg2_pipeline/__init__.py)

# Why $(VENV) cannot be used any more: Python was replaced or removed under it, or this folder was moved or copied.
define CHECK_VENV
cfg=$(VENV)/pyvenv.cfg; test -f $$cfg || exit 0; \
built=$$(sed -n 's/^version = \([0-9]*\.[0-9]*\).*/\1/p' $$cfg); \
now=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) || now=; \
case "$$(sed -n 's/^command = //p' $$cfg)" in (""|*" $(CURDIR)/$(VENV)") here=1;; (*) here=;; esac; \
if test -z "$$now"; then echo "The Python of $(VENV) is gone"; \
elif test "$${built:-$$now}" != "$$now"; then echo "$(VENV) was made for Python $$built, and this is now $$now"; \
elif test -z "$$here"; then echo "$(VENV) was made in another folder"; fi
endef
STALE := $(shell $(CHECK_VENV))
ifneq ($(STALE),)
.PHONY: $(BIN)/python
endif

# A process more than there are cores, each with servers of its own. A file's tests share fixtures, so one process runs them all.
PARALLEL = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run editable test endurance endurance-short lint bench clean

run: $(VENV)/run.stamp $(EXTRA_STAMPS) $(if $(COPY),editable)
	@exec $(BIN)/python -P -m aiseg2_pipeline.cli run

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest $(PARALLEL)

# Its tests, then longer chaos and fuzzing, a year of readings that go out, an hour of the container under its memory limit, and
# an hour of the real pipeline under faults: about four and a half hours.
endurance: endurance-short
	@$(BIN)/python -m benchmarks.chaos --days 8 --faults 4000 --seed 7000
	@$(BIN)/python -m benchmarks.fuzz
	@$(BIN)/python -m benchmarks.past_out
	@$(BIN)/python -m benchmarks.container_hour
	@$(BIN)/python -m benchmarks.soak

# Chaos with fixed seeds, alone because its simulated time runs on this machine's; then fuzzing and the compose file on a
# real engine, which mostly waits.
CHAOS = aiseg2_pipeline_tests/endurance/test_chaos.py
endurance-short: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest $(CHAOS)
	@$(BIN)/python -m pytest $(PARALLEL) aiseg2_pipeline_tests/endurance --ignore $(CHAOS)

lint: $(VENV)/dev.stamp
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

bench: $(VENV)/dev.stamp
	@for name in live_reading minute_run run_history store write_out dashboards healing first_paint; do \
		echo; echo "## $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is %d.%d. Name another one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(if $(STALE),@echo "$(STALE): building $(VENV) anew ..."; rm -rf $(VENV))
	@# Without Debian's python3-venv, this fails half-way: remove the rest, or the next make would use it.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# By hash, from the lock, and only as wheels: building a source distribution could run anything.
$(VENV)/run.stamp: pyproject.toml requirements-core.lock $(BIN)/python
	@echo "Installing aiseg2-pipeline into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP) --require-hashes --no-deps --only-binary=:all: --requirement requirements-core.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

editable: $(VENV)/run.stamp
	@echo "pip install . put a copy of this folder into $(VENV), which does not follow its changes: installing the folder itself again ..."
	@$(PIP) --no-deps --no-build-isolation --editable .

$(VENV)/extra-%.stamp: requirements-%.lock $(VENV)/run.stamp
	@echo "Installing the extra $* into $(VENV) ..."
	@$(PIP) --require-hashes --no-deps --only-binary=:all: --requirement $<
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "Installing the tools of its tests into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@
