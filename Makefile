PYTHON ?= python

.PHONY: help run test test-servers check bench lock

help:   ## what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ ·/'

run:    ## answer the shipped sample with a local model
	$(PYTHON) -m engine

test:   ## the whole test set
	$(PYTHON) -m pytest -n 4 --dist loadfile

test-servers:  ## install third-party servers for the tests, and run the tests that need them
	PYTHON=$(PYTHON) bash .ci/servers

check:  ## style, types, import contracts
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	lint-imports

bench:  ## every benchmark: ratios, with the machine and the versions that they were measured on
	@for script in benchmarks/*.py; do echo "== $$script"; $(PYTHON) $$script || exit 1; done

lock:   ## make constraints.txt anew
	bash .ci/lock
