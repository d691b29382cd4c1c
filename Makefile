# Every target makes what it needs: `make demo` or `make test` on a fresh clone is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= ./store

.PHONY: demo replica safety readme test test-all test-oldest test-newest test-kernels bench mutate shuffled check lock clean

demo: $(VENV)/.demo
	$(BIN)/depthsweep run sweeps/library/demo.yaml --store $(STORE)
	$(BIN)/depthsweep profile demo --store $(STORE)

# The whole study in miniature, with the seeds for verdicts: 404 runs. Interrupted, the same command
# goes on. What it found goes into committed files, from which `make readme` takes what pages say.
replica: $(VENV)/.replica
	$(BIN)/depthsweep run sweeps/library/replica-verdicts.yaml --store $(STORE)
	$(BIN)/depthsweep claims replica-verdicts --store $(STORE)
	$(BIN)/depthsweep report replica-verdicts --store $(STORE) -o replica.html
	$(BIN)/depthsweep profile replica-verdicts --store $(STORE) --runs \
		-o sweeps/library/replica-summary.csv
	$(BIN)/depthsweep compare replica-verdicts --store $(STORE) \
		-o sweeps/library/replica-compare.csv
	$(BIN)/depthsweep claims replica-verdicts --store $(STORE) --json \
		> sweeps/library/replica-claims.json

# Does alignment survive when depth is controlled? In miniature: 120 runs. Interrupted, the same
# command goes on. What it found goes into committed files, as that of the replica does.
safety: $(VENV)/.demo
	$(BIN)/depthsweep run sweeps/library/safety-mini.yaml --store $(STORE)
	$(BIN)/depthsweep claims safety-mini --store $(STORE)
	$(BIN)/depthsweep report safety-mini --store $(STORE) -o safety.html
	$(BIN)/depthsweep profile safety-mini --store $(STORE) --runs \
		-o sweeps/library/safety-mini-summary.csv
	for control in equal_step layer_rates; do \
		$(BIN)/depthsweep compare safety-mini --control $$control --store $(STORE) \
			-o sweeps/library/safety-mini-$$control.csv || exit; \
	done

# Every output and picture of README.md and the other pages, made again from the demo.
readme: $(VENV)/.test
	$(BIN)/depthsweep run sweeps/library/demo.yaml --store $(STORE)
	$(BIN)/python -m tests.readme $(STORE)

# Some machines have it set; hundreds of processes of the tests would each compile this code again.
demo test test-all: export PYTHONDONTWRITEBYTECODE =

# Three on two cores: files that wait lie among those that compute (tests/conftest.py), so both
# cores are busy throughout.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest

# What meets models of transformers, with the ends of the range that pyproject allows, each release
# beside the rest of the environment.
OLDEST := $(shell sed -n 's/.*"transformers>=\([0-9.]*\),<=.*/\1/p' pyproject.toml)
NEWEST := $(shell sed -n 's/.*"transformers>=.*,<=\([0-9.]*\)".*/\1/p' pyproject.toml)
test-oldest: RELEASE = $(OLDEST)
test-newest: RELEASE = $(NEWEST)
test-oldest test-newest: $(VENV)/.test
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --upgrade \
		--target $(CURDIR)/$(VENV)/of-$(RELEASE) transformers==$(RELEASE)
	PYTHONPATH=$(CURDIR)/$(VENV)/of-$(RELEASE) TRANSFORMERS_RELEASE=$(RELEASE) \
		$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" \
		tests/workers/models tests/workers/depth \
		tests/workers/objectives/test_objectives.py tests/workers/test_loading.py \
		tests/workers/test_train.py

# A GPU's kernels, compiled and interpreted on a CPU, by the Triton that torch's builds for CUDA bring:
# 0.7 GB that no other test needs, and that much else would import where it is there.
test-kernels: $(VENV)/.test
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --upgrade \
		--target $(CURDIR)/$(VENV)/of-triton $$(sed -n 's/^\(triton==[0-9.]*\).*/\1/p' requirements.lock)
	PYTHONPATH=$(CURDIR)/$(VENV)/of-triton \
		$(BIN)/python -m pytest tests/workers/passes/test_triton_passes.py

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks

# Faults planted in what decides results and recovery: do the tests notice? SEED=N takes others.
SEED ?= 20261125
mutate: $(VENV)/.test
	$(BIN)/python -m tests.mutation --seed $(SEED)

# Tests that start no process and no server, twenty times in an order that a seed decides: none may
# rely on another one before it. FIRST=N begins with another seed.
FIRST ?= 1
FAST := tests/sweeps/declaration tests/sweeps/spec tests/sweeps/statistics/test_intervals.py \
	tests/sweeps/statistics/test_quantities.py tests/sweeps/statistics/test_profiles.py \
	tests/sweeps/leases/test_lease.py tests/sweeps/attempts/test_writer.py \
	tests/sweeps/attempts/test_manifest.py tests/orchestrator/policy tests/orchestrator/ledger
shuffled: $(VENV)/.test
	for seed in $$(seq $(FIRST) $$(($(FIRST) + 19))); do \
		$(BIN)/python -m pytest -q -m "not slow" -p randomly --randomly-seed=$$seed $(FAST) \
			|| exit 1; done

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

# Versions of everything, for every supported Python; torch brings its own CUDA pins.
lock: $(VENV)/.check
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" -q -o requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info

# torch comes first: asked for later, through a range, it may bring gigabytes of CUDA packages
# where there is no GPU.
$(VENV)/.torch: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "depthsweep needs Python 3.11 to 3.13: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install -q --disable-pip-version-check -c requirements.lock -e '.[demo]'
	@touch $@

$(VENV)/.replica: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install -q --disable-pip-version-check -c requirements.lock -e '.[deepspeed]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install -q --disable-pip-version-check -c requirements.lock -e '.[demo,deepspeed,s3,gcs,azure,track,test,check]'
	@touch $@ $(VENV)/.demo $(VENV)/.replica

$(VENV)/.check: $(VENV)/.test
	@touch $@
