# Everything runs from .venv, which make builds with what the machine has: Python 3.11 or later.
PYTHON ?= python3
BIN = .venv/bin

# Real text that is not part of the project; see tests/real_text.py.
NPFORMER_DATA ?= ../shared/data
MULTI30K = $(NPFORMER_DATA)/multi30k/tok

# A machine with a GPU may have all that is needed, and no way to install: see `gpu`.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
GPU_PARTS = tests training kernels decoding multi30k base
TRAINING ?= base/25000 base/4096 big/25000
SHAPES ?= 3
SEEDS ?= 1 2 3
MINUTES ?= 5
WITHIN ?= 0
DEADLINE ?= 0
MEASURE = $(GPU_PYTHON) -m benchmarks.within $(DEADLINE) $(GPU_PYTHON) -m

# Results go to a folder that is named for the machine, the processor or the card: MACHINE names
# another, and OUT a folder elsewhere.
MACHINE ?= $(shell $(RUN) -m benchmarks.machine $(MEASURED))
OUT ?= benchmarks/results/$(MACHINE)
bench% scaling: RUN = $(BIN)/python
bench% scaling: MEASURED = cpu
gpu%: RUN = $(GPU_PYTHON)
gpu%: MEASURED = gpu
gpu%: ROUNDS ?= 5

# What `bench` measures: the parts, and config/beam/batch of translation. ROUNDS are each benchmark's
# own where it is not given.
BENCH_PARTS = translation int8 text start training avx2 end-to-end shortlist
AVX2_PART ?= translation int8 text training
TRANSLATION ?= base/1/1 base/4/1 tiny/1/1 tiny/4/1 base/1/64 base/4/64 tiny/1/64 tiny/4/64
INT8 ?= base/1/1 base/4/64 tiny/1/1 tiny/4/64
SIZES ?= tiny small base
MODEL ?= runs/multi30k-tiny
CORPUS ?= runs/bench/tiny
DEMO_MODEL ?= runs/demo/model
TEST_TEXT = $(MULTI30K)/test_2016_flickr.lc.norm.tok
CPU_MEASURE = $(BIN)/python -m benchmarks
GIVEN_ROUNDS = $(if $(ROUNDS),--rounds $(ROUNDS))
GIVEN = $(GIVEN_ROUNDS) $(WITHOUT)

.PHONY: demo test test-all experiments packages lint bench scaling runs/gpu/base clean
.PHONY: bench-translation bench-int8 bench-text bench-start bench-training bench-end-to-end
.PHONY: bench-shortlist bench-avx2
.PHONY: gpu gpu-tests gpu-training gpu-kernels gpu-decoding gpu-multi30k
.PHONY: gpu-base gpu-base-norms gpu-base-losses

demo: .venv/demo
	$(BIN)/npformer demo --out runs/demo

# Two processes share the tests, a file at a time, in the order of tests/conftest.py. Libraries get
# one thread, for more would only be in each other's way.
test: .venv/test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# And the campaigns: many more cases, drawn at random.
test-all: test
	$(BIN)/python -m pytest -m campaign
	$(BIN)/python -m tests.damage -n 1000
	$(BIN)/python -m tests.kill_campaign -n 200

# The pages of docs/experiments, measured again: make experiments, or make experiment-table1. Those
# in its folder `long` take hours: make experiment-long-table4.
EXPERIMENTS = table1 why table2 table3 table4 figures
FLAGS_table4 = --train $(NPFORMER_DATA)/craft/train.trees --dev $(NPFORMER_DATA)/craft/dev.trees
LONG_table3 = --data runs/multi30k/corpus
LONG_table4 = $(FLAGS_table4)
experiments: $(addprefix experiment-,$(EXPERIMENTS))
experiment-%: .venv/test
	mkdir -p docs/experiments
	$(BIN)/npformer experiment $* $(FLAGS_$*) --out runs/experiments/$*
	cp runs/experiments/$*/$*[.-]* docs/experiments
experiment-long-%: .venv/test
	mkdir -p docs/experiments/long
	$(BIN)/npformer experiment $* --scale long $(LONG_$*) --out runs/experiments/long/$*
	cp runs/experiments/long/$*/$*[.-]* docs/experiments/long
experiment-long-table3: runs/multi30k/corpus

# Few pairs, so that small models see each of them many times.
CAPTIONS = $(NPFORMER_DATA)/multi30k/raw
runs/multi30k/corpus: | .venv/test
	mkdir -p runs/multi30k
	for side in en de; do head -n 6000 $(CAPTIONS)/train.$$side > runs/multi30k/train.$$side; done
	$(BIN)/npformer prepare --train_source runs/multi30k/train.en --valid_source $(CAPTIONS)/val.en \
	  --train_target runs/multi30k/train.de --valid_target $(CAPTIONS)/val.de --vocab_size 2000 \
	  --out $@

# The wheel and the source distribution, installed and used on all Pythons that there are.
packages: .venv/test
	$(BIN)/python -m tests.packages

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each part writes its results to OUT as they come, the most important first; one that fails does not
# keep the others from running. On a quiet machine of two cores all of them take an hour and a half.
# MODEL is a trained model, whose vocabulary is that of CORPUS; DEMO_MODEL is the demonstration's. The
# peers: .venv/bin/pip install torch==2.13.0 (its CPU build) ctranslate2 transformers jax
bench: PART ?= $(BENCH_PARTS)
bench:
	@test -n "$(strip $(PART))" || { echo "PART is empty; it names parts: $(BENCH_PARTS)" >&2; exit 2; }
	status=0; for part in $(PART); do $(MAKE) bench-$$part || status=1; done; exit $$status
	$(BIN)/python -m benchmarks.table

bench-translation: .venv/test
	status=0; for task in $(TRANSLATION); do \
	  set -- $$(echo $$task | tr / ' '); \
	  $(CPU_MEASURE).translation --config $$1 --beam $$2 --batch $$3 \
	    --out $(OUT)/translation-$$1-beam$$2-batch$$3.json $(GIVEN) || status=1; \
	done; exit $$status

bench-int8: .venv/test
	status=0; for task in $(INT8); do \
	  set -- $$(echo $$task | tr / ' '); \
	  $(CPU_MEASURE).translation --weights int8 --config $$1 --beam $$2 --batch $$3 \
	    --out $(OUT)/translation-int8-$$1-beam$$2-batch$$3.json $(GIVEN) || status=1; \
	done; exit $$status

bench-text: .venv/test
	$(CPU_MEASURE).text_to_text --model $(MODEL) --source $(TEST_TEXT).en \
	  --out $(OUT)/text-to-text-$(notdir $(MODEL)).json $(GIVEN)

bench-start: .venv/test
	$(CPU_MEASURE).start --model $(DEMO_MODEL) --out $(OUT)/start.json $(GIVEN_ROUNDS)

bench-training: .venv/test
	status=0; for size in $(SIZES); do \
	  $(CPU_MEASURE).training_step --config $$size --out $(OUT)/training-step-$$size.json $(GIVEN) \
	    || status=1; \
	done; exit $$status

bench-end-to-end: runs/bench/small runs/bench/tiny
	status=0; for size in small tiny; do \
	  $(CPU_MEASURE).end_to_end --config train/configs/multi30k-$$size.yaml --data runs/bench/$$size \
	    --out $(OUT)/end-to-end-multi30k-$$size.json $(GIVEN) || status=1; \
	done; exit $$status

# Single sentences, and batches, which together need more of the vocabulary. The model's directory
# gets a shortlist if it has none. The base model is random, with a vocabulary that CORPUS has.
bench-shortlist: .venv/test | $(MODEL)/shortlist.safetensors
	status=0; for task in 1/1 4/64; do \
	  set -- $$(echo $$task | tr / ' '); \
	  $(CPU_MEASURE).shortlist --model $(MODEL) --beam $$1 --batch $$2 --tokenize none \
	    --source $(TEST_TEXT).en --reference $(TEST_TEXT).de \
	    --out $(OUT)/shortlist-$(notdir $(MODEL))-beam$$1-batch$$2.json $(GIVEN) || status=1; \
	  $(CPU_MEASURE).shortlist --random base --data $(CORPUS) --beam $$1 --batch $$2 \
	    --source $(TEST_TEXT).en --out $(OUT)/shortlist-base-beam$$1-batch$$2.json $(GIVEN) \
	    || status=1; \
	done; exit $$status

$(MODEL)/shortlist.safetensors: | $(CORPUS)
	$(BIN)/npformer shortlist --model $(MODEL) --data $(CORPUS)

# On a processor with AVX-512 once more without it.
bench-avx2: .venv/test
	@if $(BIN)/python -m benchmarks.machine cpu | grep -q avx512; then \
	  $(MAKE) bench PART="$(AVX2_PART)" OUT=$(OUT:%-avx512=%)-avx2-only WITHOUT=--without-avx512; \
	else echo "this processor has no AVX-512; what it gives is not measured"; fi

# Two ranks on this machine, then on two hosts that network namespaces make of it (as root), and the
# page that quotes them.
scaling: .venv/test
	for size in tiny small base; do \
	  OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/mpiexec -n 2 \
	    $(BIN)/python -m benchmarks.scaling --config $$size --out $(OUT)/scaling-$$size.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.two_hosts --config small --out $(OUT)/two-hosts-small.json
	$(BIN)/python -m docs.fill

# Each part writes its results to OUT as they come, the most important first; one that fails does not
# keep the others from running. WITHIN ends all of it after so many minutes, and names what was not
# measured. Nothing is installed: GPU_PYTHON has CuPy, ml_dtypes and, for the peers, PyTorch, and JAX
# and CTranslate2 if they are to take part.
gpu: PART ?= $(GPU_PARTS)
gpu:
	@test -n "$(strip $(PART))" || { echo "PART is empty; it names parts: $(GPU_PARTS)" >&2; exit 2; }
	status=0; deadline=$$(expr $$(date +%s) + 60 '*' $(WITHIN)); test $(WITHIN) != 0 || deadline=0; \
	for part in $(PART); do $(MAKE) gpu-$$part DEADLINE=$$deadline || status=1; done; exit $$status

gpu-tests:
	$(MEASURE) benchmarks.gpu_tests --out $(OUT)/gpu-tests.json

# On batches that do not come again. Each shape that peers' batches are filled up to is compiled anew.
gpu-training:
	status=0; for task in $(TRAINING); do \
	  set -- $$(echo $$task | tr / ' '); \
	  $(MEASURE) benchmarks.gpu_training --config $$1 --tokens $$2 --fresh --shapes $(SHAPES) \
	    --rounds $(ROUNDS) --out $(OUT)/gpu-training-$$1-$$2.json || status=1; \
	done; exit $$status

gpu-kernels:
	status=0; for size in base big; do \
	  $(MEASURE) benchmarks.gpu_kernels --config $$size --out $(OUT)/gpu-kernels-$$size.json \
	    || status=1; \
	done; exit $$status

gpu-decoding:
	status=0; $(MEASURE) benchmarks.gpu_decoding --beam 4 --out $(OUT)/gpu-decoding-base-beam4.json \
	  || status=1; \
	$(MEASURE) benchmarks.gpu_decoding --beam 1 --one-by-one --rounds 3 \
	  --out $(OUT)/gpu-decoding-base-one-by-one.json || status=1; exit $$status

gpu-multi30k:
	status=0; for seed in $(SEEDS); do \
	  $(MEASURE) benchmarks.gpu_multi30k --data $(MULTI30K) --seed $$seed \
	    --out $(OUT)/gpu-multi30k-seed$$seed.json || status=1; \
	done; exit $$status

# The paper's model and the one with pre-norm, in as many steps and together in MINUTES of training;
# and the first losses beside PyTorch's. Their corpus is made where it is not there yet, which takes
# a minute and no GPU: `make runs/gpu/base` does it on another machine, to be carried to the one with
# the card.
gpu-base:
	status=0; for half in norms losses; do $(MAKE) gpu-base-$$half || status=1; done; exit $$status

gpu-base-norms:
	$(MEASURE) benchmarks.gpu_base --data $(NPFORMER_DATA) --corpus runs/gpu/base --pre-norm \
	  --minutes $(MINUTES) --out $(OUT)/gpu-base.json

gpu-base-losses: | runs/gpu/base/corpus
	$(MEASURE) benchmarks.gpu_losses --corpus runs/gpu/base --out $(OUT)/gpu-losses.json

runs/gpu/base runs/gpu/base/corpus:
	$(GPU_PYTHON) -m benchmarks.gpu_base --data $(NPFORMER_DATA) --corpus runs/gpu/base --only-prepare

runs/bench/small: VOCABULARY = 8000
runs/bench/tiny: VOCABULARY = 10000
runs/bench/small runs/bench/tiny: | .venv/test
	mkdir -p runs/bench
	$(BIN)/npformer prepare --out $@ --vocab-size $(VOCABULARY) \
	  --train-source $(MULTI30K)/train.lc.norm.tok.en --train-target $(MULTI30K)/train.lc.norm.tok.de \
	  --valid-source $(MULTI30K)/val.lc.norm.tok.en --valid-target $(MULTI30K)/val.lc.norm.tok.de

clean:
	rm -rf .venv build *.egg-info

# One environment; each stamp says which extras are in it.
.venv/bin/python:
	$(PYTHON) -m venv .venv

# Python compiles what it imports: a third of all that pip would compile now.
.venv/demo: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[fast,plot]'
	@touch $@

.venv/test: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@
