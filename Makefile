# Two commands do everything: `make run` and `make test`. Both set up .venv from the lock first.
#   PROFILE=smoke|cpu|cuda|npu   MODEL=catalogue name, ModelScope id or folder   RUN=name of the run
#   DATA=math10k|generated|file|folder|ModelScope id  TRAIN=2000  EVAL=200 (how many rows)
#   COLUMNS="instruction=question output=solution" (what the data call their columns)
#   OVERRIDES="learning_rate=5.0e-5 lora_rank=16"
#   TUNED=yes|no (faster settings)  SEEDS=3 (trainings of each method)
#   METHODS="lora qlora dora"    (recipes in configs/)
#   CARDS=2|all                  (cards on which one training runs)
#   SHARDED=yes|no               (whether these shard the model)
#   LANGUAGE=en|zh (what you are spoken to in; otherwise by the locale)
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# An Ascend host has /dev/davinci0 ...; its locks (helpers/machine/generations.py) are for 3.11 alone.
ASCEND := $(wildcard /dev/davinci[0-9]*)
VERSIONS := $(if $(ASCEND),3.11,3.11 3.12 3.13)
FITS = -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(VERSIONS)".split())' 2>/dev/null
# Whichever Python there is of these, else one that conda then makes here.
MADE_PYTHON := .venv-python/bin/python
CONDA = $(firstword $(shell command -v conda || ls /root/miniconda3/bin/conda $(HOME)/miniconda3/bin/conda 2>/dev/null))
ifeq ($(origin PYTHON),undefined)
  PYTHON := $(shell for python in $(VERSIONS:%=python%) python3 $(MADE_PYTHON); do \
    $$python $(FITS) && { command -v $$python; break; }; done)
  PYTHON := $(or $(PYTHON),$(if $(CONDA),$(MADE_PYTHON),python3))
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
KERNEL := $(VENV)/.kernel
# What has a .venv and a lock of its own, beside the main ones.
APART := evalscope book study
# The oldest CANNs whose torch differ; the newest's is that of .venv.
OLDER := 8.2 8.3
EVALSCOPE_READY := .venv-evalscope/.ready
BOOK_READY := .venv-book/.ready
STUDY_READY := .venv-study/.ready
# Each holds every package. Which one was installed stands in .ready: CANN may be another by now.
LOCK = $(if $(ASCEND),$(shell $(PYTHON) -m helpers.programs.locks 2>/dev/null),requirements.lock)
OUTDATED = $(if $(filter-out $(file <$(READY)),$(LOCK)),outdated)
NEEDS_PYTHON = { echo "$(NEEDS_PYTHON_SAYS)" >&2; exit 1; }
# uv does not read pip's settings: pass on the mirror that the reader has configured for pip.
PIP_MIRROR = $(shell $(BIN)/python -m pip config get global.index-url 2>/dev/null)
UV = $(if $(PIP_MIRROR),UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$(PIP_MIRROR)}) $(BIN)/python -m uv
# What a step of the set-up prints is kept, and a failure ends with its sentence (helpers/programs/faults.py).
EXPLAINED = 2>&1 | tee $(VENV)/setup.log; test $${PIPESTATUS[0]} -eq 0 || { \
	  $(BIN)/python -m helpers.programs.faults $(VENV)/setup.log >&2; exit 1; }

# A kernel of this .venv is used even where another "python3" kernel is registered for the user.
export JUPYTER_PREFER_ENV_PATH := 1
# Two tests at a time, those of one file in turn.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder
export TUTORIAL_PROFILE := $(PROFILE)
export TUTORIAL_MODEL := $(MODEL)
export TUTORIAL_RUN := $(RUN)
export TUTORIAL_DATA := $(DATA)
export TUTORIAL_TRAIN := $(TRAIN)
export TUTORIAL_EVAL := $(EVAL)
# A terminal's width goes by the same name: what the environment says is not meant.
export TUTORIAL_COLUMNS := $(if $(findstring command line,$(origin COLUMNS)),$(COLUMNS))
export TUTORIAL_OVERRIDES := $(OVERRIDES)
export TUTORIAL_TUNED := $(TUNED)
export TUTORIAL_SEEDS := $(SEEDS)
export TUTORIAL_METHODS := $(METHODS)
export TUTORIAL_CARDS := $(CARDS)
export TUTORIAL_SHARDED := $(SHARDED)
export CARD_GIB CARD PRICE
# Locales go by the same name in the environment (GNU's list): only what is typed here is meant.
export TUTORIAL_LANGUAGE := $(if $(findstring command line,$(origin LANGUAGE)),$(LANGUAGE),$(TUTORIAL_LANGUAGE))

# What this file itself says: in English, unless the reader's language has its own make.mk.
NEEDS_PYTHON_SAYS = This needs Python $(VERSIONS:%=%,) and '$(PYTHON)' is not one of these: install one, or say where it is with 'make PYTHON=/path/to/python3.11 ...'.
NEEDS_VENV_SAYS = Python cannot make a virtual environment: on Debian and Ubuntu run 'apt install python3.11-venv', then this command again.
SETTING_UP_SAYS = Setting up $(VENV) from $(LOCK) ...
MAKING_PYTHON_SAYS = conda makes a Python 3.11 in .venv-python, for no other is here that fits ...
TARGETS := Makefile
LOCALE := $(or $(TUTORIAL_LANGUAGE),$(LANGUAGE),$(LC_ALL),$(LC_MESSAGES),$(LANG))
SPOKEN := $(firstword $(subst _, ,$(subst ., ,$(subst :, ,$(LOCALE)))))
-include helpers/words/$(or $(SPOKEN),en)/make.mk

.PHONY: evalscope help setup run runs stop nodes test check fuzz data notebooks report book lab doctor plan plans study bench card lint words lock clean font generations outdated

help:  ## list the targets
	@grep -E '^(# )?[a-z]+:.*##' $(TARGETS) | sed -E 's/^# //; s/:.*## /\t/' | expand -t 12

setup:  ## make .venv from the lock, or mend it
	@$(MAKE) --no-print-directory -W pyproject.toml $(KERNEL)

$(MADE_PYTHON):
	@echo "$(MAKING_PYTHON_SAYS)"
	@$(CONDA) create -q -y -p .venv-python python=3.11 >/dev/null

$(READY): $(LOCK) pyproject.toml $(OUTDATED) | $(filter $(MADE_PYTHON),$(PYTHON))
	@$(PYTHON) $(FITS) || $(NEEDS_PYTHON)
	@$(if $(ASCEND),$(PYTHON) -m helpers.programs.locks check)
	@$(BIN)/python $(FITS) || rm -rf $(VENV)
	@echo "$(SETTING_UP_SAYS)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(NEEDS_VENV_SAYS)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip -q
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(sed -n 's/^ *"\(uv==[^"]*\)".*/\1/p' pyproject.toml)" $(EXPLAINED)
	@$(UV) pip sync -q --python $(BIN)/python --compile-bytecode $(LOCK) $(EXPLAINED)
	@$(UV) pip install -q --python $(BIN)/python --no-deps --editable . $(EXPLAINED)
	@echo $(LOCK) >$@

# Any JupyterLab of this user then has the notebooks' kernel (helpers/programs/kernel.py).
$(KERNEL): $(READY) $(wildcard helpers/programs/kernel.*) helpers/machine/cann.py
	@$(BIN)/python -m helpers.programs.kernel

run: $(KERNEL)  ## run the six notebooks and print the comparison
	@$(BIN)/python -m helpers run

runs: $(READY)  ## list the runs: what is at work now, what is finished
	@$(BIN)/python -m helpers runs

stop: $(READY)  ## stop the trainings that notebooks of RUN=NAME have started, with a checkpoint
	@$(BIN)/python -m helpers stop

test: $(KERNEL) $(EVALSCOPE_READY) lint  ## lint, unit tests, and the six notebooks on the smoke profile
	$(BIN)/python -m pytest -m "not long" $(BESIDE)
	TUTORIAL_PROFILE=$(or $(PROFILE),smoke) TUTORIAL_RUN=$(or $(RUN),test) TUTORIAL_HEADLESS=1 TUTORIAL_LANGUAGE= \
	  $(BIN)/python -m pytest --nbval notebooks $(if $(RUN)$(PROFILE),,$(BESIDE))

check: $(KERNEL) $(STUDY_READY)  ## the long tests: real trainings, a simulated NPU, a browser
	$(BIN)/python -m pytest -m long $(BESIDE)

fuzz: $(KERNEL)  ## try 600 hostile situations (about 15 minutes); CASES=60 SEED=7
	$(BIN)/python tests/fuzz.py $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED))

plan: $(READY)  ## plan memory, time and cost of the trainings, before renting (CARD=910B2 PRICE=2.88 CARD_GIB=64)
	@$(BIN)/python -m helpers plan

# A training and its answers each, several at a time (helpers/study); Ray has a .venv of its own.
study: $(READY) $(STUDY_READY)  ## study sizes, methods and seeds: MODELS="Qwen2-0.5B Qwen2-7B" METHODS="lora qlora" SEEDS=3, or STUDY=article
	@$(BIN)/python -m helpers study $(if $(PROFILE),--profile "$(PROFILE)") $(if $(RUN),--run "$(RUN)") \
	  $(if $(MODELS),--models "$(MODELS)") $(if $(METHODS),--methods "$(METHODS)") \
	  $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(STUDY),--study "$(STUDY)") \
	  $(if $(WORKERS),--workers "$(WORKERS)") $(if $(ADDRESS),--address "$(ADDRESS)")

nodes: $(READY)  ## print what each of several machines runs to train together: NODES=2 CARDS=8 MASTER_ADDR=192.168.1.10
	@$(BIN)/python -m helpers nodes

data: $(READY)  ## fetch the model and the data, as configs/lora.yaml expects them
	@$(BIN)/python -m helpers data

notebooks: $(KERNEL)  ## take over the executed notebooks of a run in both languages, to commit them
	@$(BIN)/python -m helpers publish

report: $(READY)  ## write runs/NAME/report.html, one page to hand around: RUN=NAME LANGUAGE=zh
	@$(BIN)/python -m helpers report

book: $(BOOK_READY)  ## build a site of both editions, without the network (book/build/site)
	@.venv-book/bin/python book/build.py

evalscope: $(READY) $(EVALSCOPE_READY)  ## serve models of a run and have evalscope judge them: SUBJECT="base lora" LIMIT=20
	@$(BIN)/python -m helpers evalscope $(if $(SUBJECT),--subject "$(SUBJECT)") \
	  $(if $(BENCHMARK),--benchmark "$(BENCHMARK)") $(if $(LIMIT),--limit "$(LIMIT)")

# evalscope, book, study: a .venv each of what nothing else needs; the main set-up cannot be hurt.
.venv-%/.ready: requirements-%.lock | $(READY)
	$(UV) venv -q --clear --python $(BIN)/python .venv-$*
	$(UV) pip sync -q --python .venv-$*/bin/python requirements-$*.lock
	@touch $@

# The torch of an older CANN, as this machine's build of it and without torch_npu.
.venv-cann-%/.ready: requirements-npu-%.lock | $(READY)
	$(UV) venv -q --clear --python $(BIN)/python .venv-cann-$*
	$(UV) pip sync -q --python .venv-cann-$*/bin/python <(awk '/^[^ ]/ {npu = /^torch-npu==/} !npu' $<)
	$(UV) pip install -q --python .venv-cann-$*/bin/python $$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' $<)
	$(UV) pip install -q --python .venv-cann-$*/bin/python --no-deps --editable .
	@touch $@

generations: $(OLDER:%=.venv-cann-%/.ready)  ## test simulated NPU, kernels and recipes with the torch of older CANNs
	for cann in $(OLDER); do \
	  .venv-cann-$$cann/bin/python -m pytest -q tests/test_npusim.py tests/worker/test_npu_4bit.py || exit 1; done

lab: $(KERNEL)  ## open the notebooks in JupyterLab (this machine only)
	@$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks

# It needs no .venv that works: a doctor looks at a broken one, too, and changes nothing.
doctor:  ## check this machine, set up or not; fails if a check does
	@python=$(BIN)/python; $$python $(FITS) || python='$(PYTHON)'; \
	  $$python $(FITS) || $(NEEDS_PYTHON); $$python -m helpers doctor

card: $(READY)  ## try kernels and recipes on the card that is here, in ten minutes
	@$(BIN)/python -m helpers card

bench: $(READY) $(STUDY_READY) plans  ## time the recipes, TRL, the pipeline and the 4-bit kernels (about two hours)
	$(BIN)/python benchmarks/bench_4bit.py kernels
	$(BIN)/python benchmarks/bench_4bit.py step
	$(BIN)/python benchmarks/bench_recipes.py full
	$(BIN)/python benchmarks/bench_recipes.py levers
	$(BIN)/python benchmarks/bench_recipes.py measuring
	$(BIN)/python benchmarks/bench_trl.py full
	$(BIN)/python benchmarks/bench_pipeline.py
	$(BIN)/python benchmarks/bench_verdict.py measure
	$(BIN)/python benchmarks/bench_time.py public here
	$(BIN)/python benchmarks/bench_study.py
	@$(BIN)/python benchmarks/table.py

plans: $(READY)  ## plan the article's recipes for three models (benchmarks/results/plans.json)
	$(BIN)/python benchmarks/plans.py

lint: $(READY)  ## ruff, mypy, the rooms' imports, and both languages
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/python -m helpers.calls.editions check

words: $(READY)  ## gather what readers read into the catalogues, and build the other editions
	@$(BIN)/python -m helpers.calls.editions gather

# Once a new sentence has a character that the font lacks (tests/test_words.py says so).
font: $(READY)  ## make the Chinese font of the figures anew, from a wheel that carries Noto Sans SC
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python -m pip download -q --no-deps \
	  --disable-pip-version-check -d "$$folder" pylopdf-fonts-zh-cn==0.1.1 && \
	  $(BIN)/python -m helpers.ground.fonts "$$folder"/*.whl

lock:  ## resolve pyproject.toml into the locks
	$(BIN)/uv pip compile pyproject.toml --group test --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url -q -o requirements.lock
	# Each begins with the pins above, and gives up those alone that its torch does not go with.
	$(BIN)/python -m helpers.machine.generations lines | while read -r lock pins; do \
	  cp requirements.lock $$lock && $(BIN)/uv pip compile pyproject.toml --group test --group npu \
	    --python-version 3.11 --python-platform aarch64-manylinux_2_28 \
	    --overrides <(printf '%s\n' $$pins) --no-annotate \
	    --generate-hashes --no-header --no-emit-index-url -q -o $$lock || exit 1; done
	for group in $(APART); do \
	  $(BIN)/uv pip compile --group $$group --universal --python-version 3.11 -c requirements.lock \
	    --generate-hashes --no-header --no-emit-index-url -q -o requirements-$$group.lock; done

clean:  ## remove .venv and its kernel's registration (runs and models stay)
	-@python=$(BIN)/python; $$python $(FITS) || python='$(PYTHON)'; \
	  test ! -e $(KERNEL) || $$python -m helpers.programs.kernel unregister
	rm -rf $(VENV) .venv-python $(addprefix .venv-,$(APART)) $(OLDER:%=.venv-cann-%)
