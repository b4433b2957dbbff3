# Needs Python 3.11 or newer with its venv module and headers, and a C compiler; says so where one is missing.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$name" && break; done)
VENV := .venv
PY := $(VENV)/bin/python
PEERS := .venv-peers
NEWEST := .venv-newest
# What decides and does nothing else; of it the tests reach 98 % at least, and of all what pyproject.toml says.
comma := ,
empty :=
CORE_FILES := taskengine/broker/* taskengine/protocol/* taskengine/security/* $(patsubst %,hardware/%.py,admission \
	arming board_config board_machine bulletin conditions consents control device_config device_types effects failover groups header \
	levels motion movements options outputs pca9685 plausibility restraints rule_config \
	rule_conflicts rules sending stop_config tones values wiring)
CORE := $(subst $(empty) ,$(comma),$(strip $(CORE_FILES)))
# What uses the parts of pyzmq and gpiozero that are private to them.
FENCED_TESTS := tests/integration tests/unit/test_socket.py tests/unit/test_socket_requests.py tests/unit/router
SECONDS := 120
# Tests at a time: many wait for an engine, and need no core meanwhile.
JOBS := $(shell nproc)
BESIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
# To collect the other files takes as long as many tests; tests/conftest.py refuses a mark that this does not find.
marked = $$(grep -rl "pytest\.mark\.$(1)" tests --include="test_*.py")
# Tests start Python a thousand times; where PYTHONDONTWRITEBYTECODE is set, each start would compile the package anew.
BYTECODE = $(PY) -m compileall -q taskengine hardware bench examples tests
SOURCES := pyproject.toml setup.py $(wildcard taskengine/*.pyx taskengine/*.pxi taskengine/*.h)
CODE := taskengine hardware bench examples tests release
# Not those of the benchmark, which measures, of the broker's states, which are Python's, nor of glibc's memory, which
# the sanitizers replace.
ASAN_TESTS := tests/unit tests/property tests/fuzz/test_frames.py --ignore=tests/unit/bench \
	--ignore=tests/property/test_broker_states.py --ignore=tests/unit/runtime/test_memory.py
CODE += website

# What the set-up needs, each with the Debian package that has it.
define PREFLIGHT
import importlib.util, os, shutil, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    sys.exit("make: Python 3.11 or newer is needed, this is %s: apt install python3 python3-venv python3-dev" % version)
missing = []
if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
    missing.append(("the venv module of Python " + version, "python%s-venv" % version))
compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
if not shutil.which(compiler):
    missing.append(("the C compiler " + compiler, "gcc libc6-dev"))
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    missing.append(("Python.h of Python " + version, "python%s-dev" % version))
for what, package in missing:
    print("make: %s is missing: apt install %s" % (what, package), file=sys.stderr)
sys.exit(bool(missing))
endef
export PREFLIGHT

.PHONY: help run test test-long demo chaos soak hostile million fuzz test-fuzz test-asan test-claims test-plain test-newest coverage test-gpio test-rules test-network test-systemd test-compat test-clients bench bench-full bench-peers \
	bench-hardware bench-rules bench-stops pi-budget test-arm test-arm-all arm-servo wheels wheelhouse check audit clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/make \1\t\2/p' Makefile

run: $(VENV)/.run  ## set up, compile and serve, by taskengine.toml if there is one; PINS=mock simulates the pins
	$(PY) -m taskengine $(if $(PINS),--pins $(PINS))

test: $(VENV)/.test  ## set up and run every test but the long ones: JOBS at a time, then those that measure, alone
	$(BYTECODE)
	$(PY) -m pytest -m "not alone and not long" $(BESIDE)
	$(PY) -m pytest -m "alone and not long" $(call marked,alone)

test-long: $(VENV)/.test  ## run the long ones: chaos, attacks, the benchmark, random inputs, in 3 minutes
	$(PY) -m pytest -m "long and not alone" $(BESIDE) $(call marked,long)
	$(PY) -m pytest -m "long and alone" $(call marked,long)

demo: $(VENV)/.run  ## play the sample communication of the original design on an engine of its own
	$(PY) -m bench.demo

chaos: $(VENV)/.test  ## kill, stop, flood and poison an engine for SECONDS (120), and judge the replies of its clients
	$(PY) -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

soak: SECONDS := 600
soak: $(VENV)/.test  ## use an engine for SECONDS (600), and fail if a guarantee is broken or a process grows
	$(PY) -m tests.chaos.soak --seconds $(SECONDS)

hostile: SECONDS := 60
hostile: $(VENV)/.test  ## let 1000 TCP peers, then 50 allowed keys attack an engine for SECONDS (60), beside an honest client
	$(PY) -m tests.chaos.hostile --seconds $(SECONDS)

million: $(VENV)/.test  ## offer a million tasks at once and read no reply, beside another client
	$(PY) -m tests.chaos.million

fuzz: RUNS := 1000000
fuzz: $(VENV)/.test  ## run RUNS (1000000) inputs through each fuzz target, with sanitizers; TARGETS names some of them
	$(PY) -m tests.fuzz --runs $(RUNS) $(if $(SEED),--seed $(SEED)) --grown build/fuzz/grown $(TARGETS)

test-fuzz: $(VENV)/.test  ## run 100 000 inputs through each fuzz target, always the same ones, and try every example of the property tests
	$(PY) -m tests.fuzz --runs 100000
	ALL_EXAMPLES=1 $(PY) -m pytest $(BESIDE) tests/property

test-asan: $(VENV)/.test  ## test the compiled code with AddressSanitizer and UndefinedBehaviorSanitizer
	$(PY) -m tests.sanitized pytest $(BESIDE) $(ASAN_TESTS)

test-claims: $(VENV)/.test  ## race for the claim word under the thread sanitizer and between processes; see what ARM would run
	$(PY) -m pytest tests/claims/checks.py
	$(PY) -m tests.claims

test-plain: $(VENV)/.test  ## test the path through pyzmq's public methods, for releases without the private symbols
	TASKENGINE_PLAIN_PYZMQ=1 $(PY) -m pytest -m "not alone" $(BESIDE) $(FENCED_TESTS)
	TASKENGINE_PLAIN_PYZMQ=1 $(PY) -m pytest tests/integration/test_insiders.py

test-newest: $(SOURCES)  ## test with the newest pyzmq and gpiozero, beyond our upper bounds, in .venv-newest
	@test -x $(NEWEST)/bin/python || "$(PYTHON)" -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade pyzmq gpiozero lgpio
	$(NEWEST)/bin/python -m pip list | grep -iE "^(pyzmq|gpiozero|lgpio) "
	$(NEWEST)/bin/python -m pytest -m "not alone" $(BESIDE) $(FENCED_TESTS) tests/hardware

coverage: $(VENV)/.test  ## measure which lines and branches the tests reach, in all processes, and compare that with the floors
	$(PY) -m coverage erase
	$(BYTECODE)
	-$(PY) -m coverage run -m pytest -m "not alone" $(BESIDE)
	$(PY) -m coverage combine --quiet
	@rm -f .coverage.*
	$(PY) -m coverage report
	$(PY) -m coverage report --fail-under=98 --include="$(CORE)"

test-gpio: $(VENV)/.test  ## run the tests of pins on a kernel with a gpiochip, which is built once, in 2 minutes
	$(PY) -m tests.gpio

test-rules: RUNS := 1000000
test-rules: $(VENV)/.test  ## play RUNS (1000000) random schedules of readings, faults, times and commands under rules, in half an hour
	$(PY) -m tests.hardware.rule_schedules $(RUNS)

test-network: $(VENV)/.test  ## cut and mend links between network namespaces, as root, within 3 minutes
	$(PY) -m tests.network

test-systemd: $(VENV)/.test  ## install, kill, hang and remove the service under a systemd of its own, as root, within 2 minutes
	$(PY) -m tests.booted

test-compat: $(VENV)/.test  ## play the newest client with the engine of 0.1.0, which is built once, and the reverse
	$(PY) -m tests.compatibility

test-clients: $(VENV)/.clients  ## run the clients in other languages against an engine; fetches Node as a wheel
	$(PY) -m tests.clients

bench: $(VENV)/.bench  ## measure this machine, within three minutes
	$(PY) -m bench

bench-full: $(VENV)/.bench  ## measure the full matrix, and write docs/benchmarks.md
	$(PY) -m bench --full

bench-peers: $(VENV)/.bench  ## install other systems into .venv-peers, Redis into the system, and measure beside them
	@test -x $(PEERS)/bin/python || "$(PYTHON)" -m venv $(PEERS)
	$(PY) -m bench.peers.install $(PEERS)/bin/python
	$(PY) -m bench --peers $(PEERS)/bin/python

bench-hardware: $(VENV)/.test  ## measure servo commands on mock pins, and on the lines of gpio-sim; PINS=auto for a Pi's own
	$(PY) -m bench.hardware --pins $(or $(PINS),mock)
	$(if $(PINS),,$(PY) -m tests.gpio -- $(PY) -m bench.hardware)

bench-rules: $(VENV)/.test  ## measure servo commands with ten rules and without, in pairs, on mock pins
	$(PY) -m bench.rules

bench-stops: $(VENV)/.test  ## measure each way to stop beside a load, and with the router stopped, on mock pins
	$(PY) -m bench.stops

pi-budget: $(VENV)/.release $(VENV)/.run  ## count a package's instructions, aarch64's by QEMU as root too, and compare them with a Pi's
	PI_ROOTS="$(if $(filter no,$(ARM)),,$$($(PY) -m tests.arm --counting))" && export PI_ROOTS && $(PY) -m bench.pi_budget

test-arm: $(VENV)/.release  ## install the wheel on Debian 13 for arm64 under QEMU, move a servo, and test; as root, the root made once, in 3 minutes
	$(PY) -m tests.arm arm64-trixie

test-arm-all: $(VENV)/.release  ## the same on Debian 12 and 13 for arm64, and on 13 for armhf, with more tests
	$(PY) -m tests.arm --long arm64-trixie arm64-bookworm armhf-trixie

arm-servo: $(VENV)/.release  ## go the way from our wheel to a servo in a fresh root for arm64, within 120 s
	$(PY) -m tests.arm --servo

wheels: $(VENV)/.release  ## build the sdist and the wheels for x86-64, aarch64 and armv7l into dist/; TARGETS names some of them
	$(PY) -m release.wheels $(TARGETS)

wheelhouse: $(VENV)/.release  ## collect what each Raspberry Pi OS installs, without a network there; TARGETS names some of them
	$(PY) -m release.wheelhouse $(TARGETS)

check: $(VENV)/.check  ## style, types, the stubs against the compiled modules, the order of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy --strict $(CODE)
	$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml taskengine._fastpath taskengine._socket taskengine._descendants bench._echo
	$(PY) -m pytest tests/test_layering.py

.PHONY: docs
docs: $(VENV)/.docs  ## build the documentation site into build/site, strictly and without the network, and examine it
	$(PY) -m website

audit: $(VENV)/.audit  ## look up known weaknesses of the installed packages; needs the network
	$(VENV)/bin/pip-audit --local --skip-editable

clean:  ## remove what make made
	rm -rf $(VENV) $(PEERS) $(NEWEST) tests/clients/javascript/node_modules build dist *.egg-info taskengine/*.c taskengine/*.so bench/_echo.c bench/*.so bench/out .benchmarks \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "make: Python 3.11 or newer is missing: apt install python3 python3-venv python3-dev gcc" >&2; exit 1; }
	@"$(PYTHON)" -c "$$PREFLIGHT"
	"$(PYTHON)" -m venv $(VENV)

# One stamp for each reach of dependencies; a wide install satisfies the narrow ones.
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --editable

$(VENV)/.run: $(SOURCES) | $(PY)
	$(INSTALL) ".[boards,hardware,numpy]"
	@touch $@

# The benchmark's own compiled module, which is never installed.
ECHO = $(VENV)/bin/cythonize --inplace --quiet --force bench/_echo.pyx

$(VENV)/.test: $(SOURCES) bench/_echo.pyx | $(PY)
	$(INSTALL) ".[test,boards,hardware,numpy]"
	$(ECHO)
	@touch $@ $(VENV)/.run $(VENV)/.bench

$(VENV)/.clients: tests/clients/requirements.txt | $(VENV)/.test
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/.bench: $(SOURCES) bench/_echo.pyx | $(PY)
	$(INSTALL) ".[bench,hardware,numpy]"
	$(ECHO)
	@touch $@ $(VENV)/.run

$(VENV)/.docs: $(SOURCES) | $(PY)
	$(INSTALL) ".[docs]"
	@touch $@

$(VENV)/.check: $(SOURCES) bench/_echo.pyx | $(PY)
	$(INSTALL) ".[dev]"
	$(ECHO)
	@touch $@ $(VENV)/.run $(VENV)/.test $(VENV)/.bench $(VENV)/.docs

$(VENV)/.release: $(SOURCES) | $(PY)
	$(INSTALL) ".[release]"
	@touch $@

$(VENV)/.audit: $(SOURCES) | $(PY)
	$(INSTALL) ".[audit]"
	@touch $@ $(VENV)/.run
