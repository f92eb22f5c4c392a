# bertrec: `make demo` runs the main job on real data, `make test` the tests, `make bench` the benchmarks. They set up what they need in .venv.

PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo bench bench-peers test lint setup browser wheel clean data-movielens data-apps data-faq data-wordnet

demo: setup
	$(RUN) -m train fit --data clothing --preset quick --seed 0 --output runs/demo
	$(RUN) -m train evaluate --run runs/demo
	$(RUN) -m export build --run runs/demo --output bundles/demo
	$(RUN) -m serving assemble --bundle bundles/demo --target cpu --output deploy/demo
	$(RUN) -m serving.demo --repository deploy/demo --bundle bundles/demo
	$(RUN) -m benchmarks latency --bundle bundles/demo --output results/latency.json

# All benchmarks of a bundle within half an hour; the demo's, which is made where it is not there. make bench BUNDLE=bundles/mine
BUNDLE := bundles/demo
RESULTS := results

bench: setup
	@test -e $(BUNDLE)/manifest.json || test $(BUNDLE) != bundles/demo || $(MAKE) demo
	$(RUN) -m benchmarks all --bundle $(BUNDLE) --output $(RESULTS); status=$$?; \
		$(RUN) -m benchmarks report --results $(RESULTS) --html $(RESULTS)/report.html && exit $$status

# Installs the other libraries, each in a venv of its own under .venv-peers (11 GB), once. TRAINED is the run that BUNDLE is of; docs/benchmarks.md
# says which docs/peers.md is made with.
TRAINED := runs/demo

bench-peers: setup
	$(RUN) -m benchmarks peers --run $(TRAINED) --bundle $(BUNDLE) --output $(RESULTS)/peers.json --page $(RESULTS)/peers.md

test: setup lint
	$(RUN) -m pytest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m mypy triton_models/model.py

browser:  # for the tests of the edge server's page, which pip cannot bring; Debian and Ubuntu, as root
	@command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null || { apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium-headless-shell fonts-dejavu-core >/dev/null; }

wheel: setup
	$(RUN) -m build --wheel

data-movielens: setup
	$(RUN) -m train.fetch movielens

data-apps: setup
	$(RUN) -m train.fetch apps

data-faq: setup
	$(RUN) -m train.fetch faq

data-wordnet: setup
	$(RUN) -m train.fetch wordnet

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test "$$(uname -s) $$(uname -m)" = "Linux x86_64" || \
		{ echo "bertrec trains and serves on Linux x86-64; this is $$(uname -s) $$(uname -m). The client alone installs anywhere: pip install bertrec"; exit 1; }
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || \
		{ echo "bertrec trains and serves on Python 3.11 or 3.12, and '$(PYTHON)' is neither. Install one, or: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON): one to three minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .venv-peers runs bundles deploy results dist build *.egg-info
