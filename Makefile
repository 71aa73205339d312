# One command each. ARGS goes to Snakemake (or to the tool that a target runs): make smoke ARGS=--dry-run
# Options of Snakemake that take a list swallow what follows them; put `--` before targets: ARGS='--quiet all -- measure'
ARGS ?=
# any Python 3.11 to 3.13; the first that runs is taken
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

HOST := .envs/host/bin
STUDY := .envs/study/bin
EVALUATE := .envs/evaluate/bin
RUFF := $(STUDY)/ruff
SNAKEFILES := Snakefile workflow
# the arm that `make verify` remakes: the study's reference, whose layers have routers
VERIFIED := auxiliary
# the studies of `make families`: every kind of selector as published and repaired, on text and on chains
FAMILIES := upcycle chains_selectors attention diffusion hybrid moe
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help study families smoke test test-cluster verify replication bench calibration gpu-check image environment evaluation-environment test-evaluation dev lock docs format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

# another study, named in ARGS by --configfile, runs alone
study: environment ## run the default study, its planted half and its text half: results/index.html
	$(if $(findstring --configfile,$(ARGS)),,$(HOST)/snakemake --configfile studies/chains.yaml $(ARGS))
	$(HOST)/snakemake $(ARGS)
	$(index)

families: environment ## run the studies of all families of selectors, one after the other: six hours of CPU time
	for study in $(FAMILIES); do $(HOST)/snakemake --configfile studies/$$study.yaml $(ARGS) || exit; done
	$(index)

smoke: environment ## run every stage on a small study: results/smoke/ from studies/smoke.yaml
	$(HOST)/snakemake --configfile studies/smoke.yaml $(ARGS)
	$(index)

test: export OMP_NUM_THREADS := 1
test: dev ## check format, lint and types, and run all tests except the slow ones
	$(RUFF) format --check .
	$(RUFF) check .
	$(STUDY)/mypy
	$(HOST)/snakefmt --check $(SNAKEFILES)
	$(HOST)/snakemake --lint
	$(STUDY)/python -m pytest -n 2 --no-loadscope-reorder -m 'not slow and not gpu and not cluster' $(ARGS)

test-evaluation: export OMP_NUM_THREADS := 1
test-evaluation: evaluation-environment ## run the tests that need the lm-evaluation-harness, which `make test` leaves out
	$(EVALUATE)/python -m pytest -m 'not slow and not gpu and not cluster' $(patsubst %,tests/evaluation/downstream/test_%.py,benchmarks every_kind harness lm_eval_model) $(ARGS)

test-cluster: export OMP_NUM_THREADS := 1
test-cluster: dev ## run studies on a Slurm and in an Apptainer that the tests bring (root, Debian); or ARGS=--without-missing
	$(STUDY)/python -m tests.cluster $(ARGS)

# the data and one run, from nothing: a finished study would leave nothing to remake
verify: environment ## remake one run of the default study, and compare its bits with studies/default.digests.json
	rm -rf .cache/verify && mkdir -p .cache/verify
	$(HOST)/snakemake --directory .cache/verify --configfile "$(CURDIR)/config.yaml" \
		--workflow-profile "$(CURDIR)/profiles/default" -- results/default/measures/$(VERIFIED)/seed10/runs.parquet
	PYTHONPATH=src $(STUDY)/python -m speciate verify --results .cache/verify/results --study default \
		--ablation $(VERIFIED) --seed 10 --digests studies/default.digests.json $(ARGS)

# kernels for AVX2 sum in another order than those for AVX-512, as another processor would
replication: export SPECIATE_KEEP_KERNELS := 1
replication: export ATEN_CPU_CAPABILITY := avx2
replication: export ONEDNN_MAX_CPU_ISA := AVX2
replication: export MKL_ENABLE_INSTRUCTIONS := AVX2
replication: environment ## run the finished default study again with kernels for AVX2, and compare its verdicts
	@test -f results/chains/manifest.json -a -f results/default/manifest.json || { echo 'make: run `make study` first' >&2; exit 1; }
	mkdir -p .cache/replication
	$(foreach file,studies/chains.yaml config.yaml,$(HOST)/snakemake --directory .cache/replication \
		--configfile "$(CURDIR)/$(file)" --workflow-profile "$(CURDIR)/profiles/default" $(ARGS) &&) true
	$(foreach study,chains default,PYTHONPATH=src $(STUDY)/python -m speciate replication --study results/$(study) \
		--against .cache/replication/results/$(study) --output results/$(study)/replication.csv &&) true

bench: dev ## measure speed and memory against named libraries; writes benchmarks/results/
	PYTHONPATH=src $(STUDY)/python benchmarks/run.py $(ARGS)

calibration: dev ## measure the error rates of our own tests; writes docs/calibration.md
	PYTHONPATH=src $(STUDY)/python -m speciate calibrate --output docs/calibration.md $(ARGS)

gpu-check: dev ## run the tests and benchmarks that need a GPU, if there is one
	@if $(STUDY)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(STUDY)/python -m pytest -m gpu $(ARGS) && PYTHONPATH=src $(STUDY)/python benchmarks/run.py gpu; \
	else echo 'gpu-check: torch sees no GPU here; nothing was run'; fi

image: ## make the pinned container image, without root; ARGS='--pull URL' fetches it, ARGS=--update pins another
	$(call build,host)
	@$(HOST)/python -m containers.image $(ARGS)

environment: ## build .envs/host (Snakemake) and .envs/study (torch) from the hashed locks in envs/
	$(call build,host study)

evaluation-environment: ## build .envs/evaluate as well, which adds the lm-evaluation-harness; a study needs it for tasks `harness`
	$(call build,host evaluate)

dev: ## build the same, and the developers' tools
	$(call build,host dev)

lock: dev ## resolve envs/*.in into envs/*.lock again; ARGS=--upgrade takes newer versions
	envs/lock.sh $(STUDY)/uv $(ARGS)

docs: dev ## generate docs/config.md, docs/bad-input.md, the tables of docs/traces.md and the JSON schema
	PYTHONPATH=src $(STUDY)/python -m speciate describe --schema workflow/schemas/study.schema.json --page docs/config.md
	PYTHONPATH=src $(STUDY)/python -m tests.bad_input
	PYTHONPATH=src $(STUDY)/python -m tests.traces.page

format: dev ## format the code
	$(RUFF) check --fix .
	$(RUFF) format .
	$(HOST)/snakefmt $(SNAKEFILES)

clean: ## remove environments, images and caches, but no results
	rm -rf .envs .cache .snakemake

# what all finished studies found, on one page
define index
@if ls results/*/manifest.json >/dev/null 2>&1; then PYTHONPATH=src $(STUDY)/python -m speciate index; fi
endef

define build
@test -n "$(PYTHON)" || { echo 'make: needs Python 3.11 to 3.13; none found (or name one: make PYTHON=...)' >&2; exit 1; }
@$(PYTHON) envs/build.py $(1)
endef
