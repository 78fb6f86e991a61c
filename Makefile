# One command each: `make demo`, `make test`.  Every target does its own set-up in .venv; a second run of
# it installs nothing.  PYTHON names the Python to start from (3.10 or newer).

PYTHON ?= python3
ARGS   ?=

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN       := .venv/bin
LOCKS     := requirements.lock requirements-test.lock
INTERFACES := $(wildcard msg/*.msg srv/*.srv action/*.action)
PIP       := $(BIN)/python -m pip --disable-pip-version-check -qq
PYTEST    := $(BIN)/python -m pytest
FOXGLOVE  := @mcap/core@2.2.2 @mcap/nodejs@1.0.2 @mcap/support@1.1.0 @foxglove/rosmsg@5.0.5 @foxglove/rosmsg2-serialization@3.1.0
# Gazebo Classic, headless: the last Debian that has it, and what its plugin is compiled with.
GAZEBO_SUITE := bullseye
GAZEBO_RUNS  := libgazebo11
GAZEBO_PARTS := gazebo libgazebo-dev libsdformat-dev libignition-math-dev libignition-transport-dev libignition-msgs-dev \
  libignition-common-dev libignition-fuel-tools-dev libprotobuf-dev libboost1.74-dev libtbb-dev libtinyxml-dev \
  libtinyxml2-dev libzmq3-dev uuid-dev libc6-dev libcrypt-dev linux-libc-dev libstdc++-10-dev
SDFORMAT  := libsdformat12-12 sdformat-sdf libignition-math6-6 libtinyxml2-9 libtinyxml2.6.2v5 liburdfdom-model3.0 libconsole-bridge1.0
# A kernel with SocketCAN, QEMU to run it, and QEMU's libraries; the name of the kernel's package changes with its version.
KERNEL    := qemu-system-x86 qemu-system-common qemu-system-data seabios busybox-static libbrlapi0.8 libcacard0 libcapstone4 \
  libexecs0 libfdt1 libslirp0 libspice-server1 libusbredirparser1 libvdeplug2 libpmem1 libndctl6 libdaxctl1 libkmod2 \
  librdmacm1 libibverbs1 libnl-3-200 libnl-route-3-200 liburing2 libfuse3-3 libaio1 libjpeg62-turbo libsasl2-2 libpixman-1-0
MCAP      := pymcap-cli==0.34.0

.PHONY: help setup demo test test-all bench lint kernel tools clean

# Tests that keep no real time share the cores; those that do come after, in two lanes (test/conftest.py).
# Status 5 says that a half has no test to run, as when only the failed ones are run again.
define pytest
failed=0; \
$(PYTEST) -m "($(1)) and not alone" -n 2 --dist worksteal $(ARGS) || [ $$? = 5 ] || failed=1; \
$(PYTEST) -m "($(1)) and alone" -n 2 --dist loadscope $(ARGS) || [ $$? = 5 ] || failed=1; \
exit $$failed
endef

help:
	@echo "make demo [ARGS=...]   one automated charging session on this machine"
	@echo "make test              the tests, without the slow ones"
	@echo "make test-all          all tests"
	@echo "make bench             the benchmarks"
	@echo "make lint              ruff and mypy"
	@echo "make kernel            the SocketCAN tests on a real kernel, in QEMU"
	@echo "make tools             optional test tools, into .tools"
	@echo "make setup             .venv with everything above"
	@echo "make clean             remove .venv, .tools and what was built"

setup: .venv/.installed
	@:

# The environment, and in it the locks.
.venv/.locked: $(LOCKS)
	@command -v "$(PYTHON)" >/dev/null || { echo "make: $(PYTHON) is not installed; Python 3.10 or newer is needed (PYTHON=... names another)." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $$("$(PYTHON)" -V) is too old; Python 3.10 or newer is needed (PYTHON=... names another)." >&2; exit 1; }
	@echo "setup: virtual environment in .venv"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "make: $(PYTHON) cannot make a virtual environment; install its venv module (apt install python3-venv)." >&2; exit 1; }
	@echo "setup: packages of $(LOCKS)"
	@$(PIP) install --no-deps $(foreach lock,$(LOCKS),-r $(lock))
	@touch $@

# The project itself, with its compiled interfaces; editable, so that only these files matter.
.venv/.installed: .venv/.locked setup.py pyproject.toml rosidl_build.py rosidl_export.py package.xml $(INTERFACES)
	@for compiler in "$${CC:-cc}" "$${CXX:-c++}"; do command -v $${compiler%% *} >/dev/null || { echo "make: the compiler $$compiler is missing; install one (apt install g++)." >&2; exit 1; }; done
	@echo "setup: robot_charger (compiles its interfaces the first time, about a minute)"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q robot_charger
	@touch $@

demo: setup
	@$(BIN)/robot-charger demo $(ARGS)

test: setup
	@$(call pytest,not slow)

test-all: setup
	@$(call pytest,slow or not slow)

bench: setup
	@for bench in bench/*.py; do test -e "$$bench" || { echo "bench: nothing in bench/"; break; }; echo "bench: $$bench"; $(BIN)/python "$$bench" $(ARGS); done

lint: setup
	@echo "lint: ruff"
	@$(BIN)/ruff format --check --quiet --diff .
	@$(BIN)/ruff check .
	@echo "lint: mypy"
	@$(BIN)/mypy

kernel: setup
	@$(BIN)/python .ci/kernel.py $(ARGS)

# apt with folders of its own: the machine's sources with the suite's name exchanged, and nothing installed.
define gazebo
( command -v apt-get dpkg-deb >/dev/null && . /etc/os-release && rm -rf .tools/gazebo .tools/apt && \
  mkdir -p .tools/apt/{sources,state/lists/partial,cache/archives/partial} && touch .tools/apt/state/status && cd .tools/apt && \
  for file in $$(grep -lsw "$$VERSION_CODENAME" /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}); do \
    sed "s/\b$$VERSION_CODENAME\b/$(GAZEBO_SUITE)/g" "$$file" >"sources/$${file##*/}"; done && \
  printf '%s\n' "Dir::State \"$$PWD/state\";" "Dir::State::status \"$$PWD/state/status\";" "Dir::Cache \"$$PWD/cache\";" \
    "Dir::Etc::sourcelist \"/dev/null\";" "Dir::Etc::sourceparts \"$$PWD/sources\";" 'APT::Sandbox::User "";' >apt.conf && \
  export APT_CONFIG="$$PWD/apt.conf" && apt-get --quiet=2 update && \
  apt-get --quiet=2 --yes --no-install-recommends --download-only install $(GAZEBO_RUNS) >/dev/null && \
  (cd cache/archives && apt-get --quiet=2 download $(GAZEBO_PARTS)) && mkdir ../gazebo && \
  for package in cache/archives/*.deb; do dpkg-deb -x "$$package" ../gazebo || exit 1; done && \
  cd .. && rm -rf apt gazebo/usr/share/{doc,man,locale,fonts,icons} && touch gazebo/.complete && \
  echo "tools: unpacked into .tools/gazebo" )
endef

# Tools that some tests compare us with; those tests skip, loudly, without them.
tools:
	@mkdir -p .tools/deb
	@echo "tools: plc-utils-extra (open-plc-utils), from the system's package archive"
	@ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || apt-get --quiet=2 update || true
	@if command -v apt-get >/dev/null && (cd .tools/deb && apt-get --quiet=2 download plc-utils-extra); then \
	  dpkg -x .tools/deb/plc-utils-extra_*.deb .tools; echo "tools: unpacked into .tools"; \
	else echo "tools: SKIPPED, plc-utils-extra cannot be downloaded here (needs apt and its package lists)" >&2; fi
	@echo "tools: Gazebo's SDF library, from the system's package archive"
	@if command -v apt-get >/dev/null && (cd .tools/deb && apt-get --quiet=2 download $(SDFORMAT)); then \
	  for package in $(SDFORMAT); do dpkg -x .tools/deb/$${package}_*.deb .tools; done; echo "tools: unpacked into .tools"; \
	else echo "tools: SKIPPED, Gazebo's SDF library cannot be downloaded here (needs apt and Debian 12's package lists)" >&2; fi
	@echo "tools: QEMU and Debian's kernel, from the system's package archive (90 MB, once)"
	@test -e .tools/kernel/.complete || ( command -v apt-get dpkg-deb >/dev/null && rm -rf .tools/kernel && mkdir -p .tools/kernel/deb && \
	  image=$$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*amd64\)$$/\1/p') && test -n "$$image" && \
	  cd .tools/kernel/deb && apt-get --quiet=2 download $(KERNEL) $$image && cd .. && \
	  for package in deb/*.deb; do dpkg-deb -x "$$package" . || exit 1; done && rm -rf deb usr/share/doc usr/share/man && \
	  touch .complete && echo "tools: unpacked into .tools/kernel" ) || \
	  echo "tools: SKIPPED, QEMU and a kernel cannot be downloaded here (needs Debian 12's apt and its package lists)" >&2
	@echo "tools: Gazebo Classic 11, from the distribution's suite that has it (240 MB, once)"
	@test -e .tools/gazebo/.complete || $(gazebo) || echo "tools: SKIPPED, Gazebo Classic cannot be unpacked here (needs Debian's apt and its archive of $(GAZEBO_SUITE))" >&2
	@echo "tools: ocpp-rpc, a strict OCPP server, from npm"
	@if command -v npm >/dev/null && npm install --silent --prefix .tools --no-audit --no-fund ocpp-rpc@2.2.1 >/dev/null; then \
	  echo "tools: ocpp-rpc is in .tools"; \
	else echo "tools: SKIPPED, ocpp-rpc cannot be installed here (needs npm)" >&2; fi
	@echo "tools: what Foxglove reads recordings with, from npm"
	@if command -v npm >/dev/null && npm install --silent --prefix .tools --no-audit --no-fund $(FOXGLOVE) >/dev/null; then \
	  echo "tools: Foxglove's libraries are in .tools"; \
	else echo "tools: SKIPPED, Foxglove's libraries cannot be installed here (needs npm)" >&2; fi
	@echo "tools: pymcap-cli, a command line for recordings, from PyPI"
	@if "$(PYTHON)" -m venv .tools/mcap && .tools/mcap/bin/python -m pip --disable-pip-version-check -qq install $(MCAP); then \
	  echo "tools: pymcap-cli is in .tools/mcap"; \
	else rm -rf .tools/mcap; echo "tools: SKIPPED, pymcap-cli cannot be installed here (needs venv and pip)" >&2; fi

clean:
	@echo "clean: .venv .tools build and caches"
	@rm -rf .venv .tools build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf robot_charger/_lib robot_charger/msg robot_charger/srv robot_charger/action robot_charger/*.so
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
