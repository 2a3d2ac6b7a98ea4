# waD: everything below works on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LINT_STAMP := $(VENV)/.lint-installed
DIR ?= tests/vectors
PYTEST_ARGS ?=
# Test processes: much of the suite waits for other processes, so two are worth it even on two cores.
JOBS ?= 2

.PHONY: demo run test soak lint bench vectors proto clean install install-python install-files uninstall

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(LINT_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

# The main job from end to end, with the real commands, in a temporary directory.
demo: $(STAMP)
	$(BIN)/python -m demo

# A daemon in the foreground with its data under build/run, against WhatsApp itself unless build/run/waD.toml says otherwise.
run: $(STAMP)
	mkdir -p -m 700 build/run
	touch build/run/waD.toml
	@echo 'talk to it with: .venv/bin/wactl --socket $(abspath build/run)/waD/control.sock …'
	XDG_RUNTIME_DIR='$(abspath build/run)' XDG_STATE_HOME='$(abspath build/run)' $(BIN)/waD --config build/run/waD.toml

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(PYTEST_ARGS)

# Hours: a simulated week, ten thousand kills on each database, a thousand lease changes, long walks.
soak: $(STAMP)
	$(BIN)/python -m pytest -q -m soak $(PYTEST_ARGS)

lint: $(LINT_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH)

vectors: $(STAMP)
	$(BIN)/python -m tests.vector_runner $(DIR)

proto: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[proto]'
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --mypy_out=. waD/proto/*.proto

# Pages and scripts that are made from declarations in the code; the tests fail when they are out of date.
documents: $(STAMP)
	$(BIN)/python -m waD.config init >etc/waD.toml
	$(BIN)/python -m waD.session.manual
	$(BIN)/python -m waD.control.manual man/waD-control.7
	$(BIN)/python -m wactl.manual man
	for shell in bash zsh fish; do $(BIN)/wactl completion $$shell >completion/wactl.$$shell || exit 1; done

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Installing: make install [PREFIX=/usr] [DESTDIR=stage] [PYTHON=/usr/bin/python3] [SYSTEMD_VERSION=252]
# The packages go into a virtual environment of their own, $(PREFIX)/lib/waD; only waD and wactl are on the path.
# pip fetches the dependencies, or takes them from a directory: PIP_NO_INDEX=1 PIP_FIND_LINKS=/path make install
# For a database on a PostgreSQL server its driver is needed as well: EXTRAS='[postgres]' make install
EXTRAS ?=
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
LIB := $(PREFIX)/lib/waD
UNITS := $(PREFIX)/lib/systemd/system
SHARE := $(PREFIX)/share
DOC := $(SHARE)/doc/waD
COMPLETIONS := $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
PROGRAMS := waD wactl
UNIT_FILES := waD.service waD.socket waD-wait@.service \
  waD-backup@.service waD-backup@.timer waD-verify@.service waD-verify@.timer
MANUALS = $(notdir $(wildcard man/*.[1-8]))
NEW = $(DESTDIR)$(LIB).new
# Without systemctl the oldest way, which newer ones understand as well.
SYSTEMD_VERSION ?= $(shell systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
# From 253 on systemctl reload waits for the daemon's answer; before it sends the signal and returns.
ifeq ($(shell [ "0$(SYSTEMD_VERSION)" -ge 253 ] 2>/dev/null && echo yes),yes)
UNIT_TYPE := -e 's|@type@|notify-reload|' -e '/^@reload@$$/d'
else
UNIT_TYPE := -e 's|@type@|notify|' -e 's|^@reload@$$|ExecReload=/bin/kill -HUP $$MAINPID|'
endif

install: install-python install-files
	@[ -n "$(DESTDIR)" ] || printf '%s\n' 'Installed. Next, as root:' \
	  '  systemd-sysusers && systemd-tmpfiles --create waD.conf && systemctl daemon-reload' \
	  '  systemctl enable --now waD.service     # after an update: systemctl restart waD.service'

# Made beside the old environment and then put in its place: a failure leaves the old one whole.
install-python:
	$(PYTHON) systemd/check_interpreter.py
	rm -rf '$(NEW)'
	mkdir -p '$(DESTDIR)$(PREFIX)/lib'
	umask 022 && $(PYTHON) -m venv '$(NEW)'
	umask 022 && '$(NEW)/bin/python' -m pip install --quiet --no-compile --disable-pip-version-check '.$(EXTRAS)'
	'$(NEW)/bin/python' -m pip uninstall --quiet --yes --disable-pip-version-check pip setuptools
	find '$(NEW)/bin' -type f -delete
	umask 022 && for name in $(PROGRAMS); do '$(PYTHON)' systemd/launcher.py '$(LIB)/bin/python' $$name >'$(NEW)/bin/'$$name \
	  && chmod 755 '$(NEW)/bin/'$$name || exit 1; done
	find '$(NEW)' -name __pycache__ -prune -exec rm -rf {} +
	umask 022 && '$(NEW)/bin/python' -m compileall -q -s '$(NEW)' -p '$(LIB)' '$(NEW)/lib'
	rm -rf '$(DESTDIR)$(LIB)'
	mv '$(NEW)' '$(DESTDIR)$(LIB)'
	install -d '$(DESTDIR)$(PREFIX)/bin'
	for name in $(PROGRAMS); do ln -sfn ../lib/waD/bin/$$name '$(DESTDIR)$(PREFIX)/bin/'$$name || exit 1; done

install-files:
	install -d '$(DESTDIR)$(UNITS)' '$(DESTDIR)$(DOC)'
	for unit in $(UNIT_FILES); do \
	  if [ -f "systemd/$$unit.in" ]; then from="systemd/$$unit.in"; else from="systemd/$$unit"; fi; \
	  sed -e 's|@bindir@|$(PREFIX)/bin|g' -e 's|@docdir@|$(DOC)|g' $(UNIT_TYPE) "$$from" >'$(DESTDIR)$(UNITS)/'"$$unit" \
	  && chmod 644 '$(DESTDIR)$(UNITS)/'"$$unit" || exit 1; done
	install -D -m 644 systemd/waD.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/waD.conf'
	install -D -m 644 systemd/waD.tmpfiles '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/waD.conf'
	install -m 644 systemd/credentials.conf.example systemd/backup.conf.example README.md docs/backup.md docs/postgres.md \
	  '$(DESTDIR)$(DOC)'
	for page in $(MANUALS); do install -D -m 644 man/$$page '$(DESTDIR)$(SHARE)/man/man'$${page##*.}/$$page || exit 1; done
	install -d -m 750 '$(DESTDIR)$(SYSCONFDIR)/waD' '$(DESTDIR)$(SYSCONFDIR)/waD/conf.d'
	[ -e '$(DESTDIR)$(SYSCONFDIR)/waD/waD.toml' ] || install -m 640 etc/waD.toml '$(DESTDIR)$(SYSCONFDIR)/waD/waD.toml'
	install -m 644 etc/waD.toml '$(DESTDIR)$(DOC)/waD.toml.example'
	[ ! -d completion ] || set -e; for name in $(PROGRAMS); do \
	  [ ! -f completion/$$name.bash ] || install -D -m 644 completion/$$name.bash '$(DESTDIR)$(word 1,$(COMPLETIONS))/'$$name; \
	  [ ! -f completion/$$name.zsh ] || install -D -m 644 completion/$$name.zsh '$(DESTDIR)$(word 2,$(COMPLETIONS))/_'$$name; \
	  [ ! -f completion/$$name.fish ] || install -D -m 644 completion/$$name.fish '$(DESTDIR)$(word 3,$(COMPLETIONS))/'$$name.fish; done

# What the operator wrote and what the daemon keeps stays: $(SYSCONFDIR)/waD, /var/lib/waD and /var/backups/waD.
uninstall:
	rm -rf '$(DESTDIR)$(LIB)' '$(NEW)' '$(DESTDIR)$(DOC)'
	for name in $(PROGRAMS); do rm -f '$(DESTDIR)$(PREFIX)/bin/'$$name '$(DESTDIR)$(word 1,$(COMPLETIONS))/'$$name \
	  '$(DESTDIR)$(word 2,$(COMPLETIONS))/_'$$name '$(DESTDIR)$(word 3,$(COMPLETIONS))/'$$name.fish; done
	for unit in $(UNIT_FILES); do rm -f '$(DESTDIR)$(UNITS)/'$$unit; done
	rm -f '$(DESTDIR)$(PREFIX)/lib/sysusers.d/waD.conf' '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/waD.conf'
	for page in $(MANUALS); do rm -f '$(DESTDIR)$(SHARE)/man/man'$${page##*.}/$$page; done
	@echo 'Left as they are: $(DESTDIR)$(SYSCONFDIR)/waD, /var/lib/waD and /var/backups/waD'
