# Everything lives in .venv; nothing is installed anywhere else. `make` alone lists what can be done.
PYTHON  ?= python3
BIN     := .venv/bin
BOOT     = @$(PYTHON) tools/bootstrap.py $(if $(LOCKED),--locked) --extras
PYTEST  := $(BIN)/python -m pytest -p no:cacheprovider
ARGS    ?=
# The notebooks, two at a time with a thread each. What of their outputs is compared: personaplex_lite/course/compare.py.
NBVAL   := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PYTEST) -p personaplex_lite.course.compare -n 2 --dist loadfile notebooks

.DEFAULT_GOAL := help
.PHONY: help talk lab notebooks slides test test-notebooks test-notebooks-gpu test-browser smoke quick lint fullsize \
        gpu train-codec train-lm eval-deps bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  LOCKED=1 takes the versions of requirements.lock; ARGS='…' is passed on to the command."

talk: ## install what is needed, then hear the model answer a recorded question
	$(BOOT) notebooks
	@$(BIN)/personaplex-lite talk $(ARGS)

lab: ## open the notebooks, at the first one
	$(BOOT) notebooks
	@$(BIN)/jupyter lab notebooks/00_hear_it.ipynb

notebooks: ## build and run anew what is stale: personaplex_lite/course/source -> notebooks and notebooks/solutions (ARGS='03 05': these)
	$(BOOT) notebooks,eval,train
	@$(MAKE) --no-print-directory eval-deps
	$(BIN)/python -m personaplex_lite.course.make $(ARGS)

# reveal.js comes along where there is npm, so that the slides work without a network; otherwise from its own server.
REVEAL   = $(if $(shell command -v npm),--SlidesExporter.reveal_url_prefix=node_modules/reveal.js \
           --SlidesExporter.require_js_url=node_modules/requirejs/require.js \
           --SlidesExporter.jquery_url=node_modules/jquery/dist/jquery.min.js)

slides: ## notebooks 00 to 03 as Jupyter's own slides, without the exercises -> out/slides
	$(BOOT) notebooks
	@mkdir -p out/slides
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix out/slides \
		reveal.js@4 requirejs@2 jquery@3
	$(BIN)/jupyter nbconvert --to slides --output-dir out/slides --no-prompt --SlidesExporter.reveal_width=1400 \
		--SlidesExporter.reveal_height=950 $(REVEAL) $(ARGS) notebooks/0[0-3]_*.ipynb

test: ## everything: every notebook, then the unit tests, with all extras
	$(BOOT) notebooks,dev,eval,train,ray,gpu-check
	@$(MAKE) --no-print-directory eval-deps
	$(NBVAL) --nbval
	$(PYTEST) tests $(ARGS)

test-notebooks: ## run every notebook and every solution, and compare what they put out (a part of `make test`)
	$(BOOT) notebooks,dev,eval,train
	@$(MAKE) --no-print-directory eval-deps
	$(NBVAL) --nbval $(ARGS)

test-notebooks-gpu: ## the same where a GPU and the 7B's weights are: every cell runs, outputs are not compared
	$(BOOT) notebooks,dev,eval,train
	@$(MAKE) --no-print-directory eval-deps
	$(NBVAL) -n 0 --nbval-lax $(ARGS)

test-browser: ## the live widget in JupyterLab and Chromium (a part of `make test`)
	$(BOOT) notebooks,dev
	$(PYTEST) tests/browser -rs $(ARGS)

smoke: ## under a minute: goldens, equalities, the house, the sizes
	$(BOOT) notebooks,dev
	$(PYTEST) tests/test_golden.py tests/test_equalities.py tests/test_house.py tests/test_lines.py \
		tests/test_project.py -m "not slow" $(ARGS)

quick: ## the everyday loop, about three minutes
	$(BOOT) notebooks,dev
	$(PYTEST) tests -m "not slow and not browser" $(ARGS)

lint: ## ruff, then the table of sizes
	$(BOOT) dev
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/python tools/lines.py

fullsize: ## the 7B with random weights: 25 GB of disk, 20 GB of memory, half an hour -> docs/fullsize.md
	$(BOOT) dev
	$(BIN)/python -m benchmarks.fullsize make
	$(BIN)/python -m benchmarks.fullsize run

gpu: ## where there is an NVIDIA card: the doctor, the benchmark (docs/gpu.md), every notebook with the 7B
	$(BOOT) notebooks,dev,eval,train
	$(BIN)/personaplex-lite doctor --device cuda --report out/doctor.md
	$(BIN)/python -m benchmarks.gpu
	@$(MAKE) --no-print-directory test-notebooks-gpu

train-codec: ## train the codec from scratch (ARGS='--help' says how)
	$(BOOT) train
	$(BIN)/personaplex-lite train codec $(ARGS)

train-lm: ## train the language model from scratch (ARGS='--help' says how)
	$(BOOT) train
	$(BIN)/personaplex-lite train lm $(ARGS)

# resemblyzer declares two packages that no longer build; what it really uses is in the [eval] extra.
eval-deps: ## the judges: voice activity, whisper, speaker similarity
	$(BOOT) eval
	@test -d $(BIN)/../lib/python3*/site-packages/resemblyzer || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps "resemblyzer>=0.1.4"

bench: ## our speed beside the public code's -> docs/speed.md (where there is a GPU, docs/gpu.md, too)
	$(BOOT) dev
	@test -d runs/official || $(BIN)/python -m benchmarks.speed setup
	$(BIN)/python -m benchmarks.speed $(ARGS)
	$(BIN)/python -m benchmarks.gpu

lock: ## write requirements.lock from what .venv has now
	@{ echo "# The versions .venv had on `$(BIN)/python -V`, written by \`make lock\`. To have the same: make LOCKED=1 talk, or"; \
	   echo "# pip install -c requirements.lock -e '.[notebooks,dev,eval,train]'"; \
	   $(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ' | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock

clean: ## remove .venv and everything made (runs/ and data/ stay)
	rm -rf .venv out build dist *.egg-info .ruff_cache .pytest_cache
	find personaplex_lite benchmarks tools tests notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
