# make demo [IMAGE=photo.jpg POINT=x,y OUT=overlay.png]    make serve [FLAGS=...]    make triton    make stack [FLAGS=...]    make load [HOST=...]
# make test-unit    make test-integration    make test    make test-integrations    make k8s    make lint    make proto    make reference    make unasync
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed
STACK := $(VENV)/.installed-stack
DEV := $(VENV)/.installed-dev
LOAD := $(VENV)/.installed-load
UNIT := $(VENV)/.installed-unit

.PHONY: demo serve triton stack load k8s test test-unit test-integration test-integrations servers lint proto check-proto reference unasync venv venv-dev clean

demo: $(RUNTIME)
	@$(BIN)/samserve demo $(if $(IMAGE),--image "$(IMAGE)") $(if $(POINT),--point="$(POINT)") $(if $(OUT),--out "$(OUT)")

serve: $(RUNTIME)
	$(BIN)/samserve serve $(FLAGS)

# Triton on a machine without container or GPU: gRPC on port 8001, metrics on port 8002.
triton: $(RUNTIME)
	$(BIN)/python -m stack.triton_server $(FLAGS)

# All components of a fleet on this machine, without containers (docs/stack.md).
stack: $(STACK)
	@sh stack/provide-redis.sh
	@sh stack/provide-triton.sh $(BIN)/python
	@sh stack/provide-prometheus.sh
	@exec $(BIN)/python -m stack $(FLAGS)

# The load test, against a new gateway or against HOST. Writes runs/load/report.md.
load: $(LOAD)
	@$(BIN)/python -m tools.load $(if $(HOST),--host "$(HOST)") $(FLAGS)

# Tests that share a server run in one process; ports are free ones, and names in /dev/shm are a run's own.
PYTEST = $(BIN)/pytest --numprocesses=logical --maxprocesses=8 --dist=loadgroup --no-loadscope-reorder

# Without PyTorch, and without any package of the system.
test-unit: $(UNIT)
	$(PYTEST) tests/unit

# Everything but the unit tests: models, real servers, programs, manifests.
test-integration: $(DEV) servers
	$(PYTEST) tests/models tests/integration tests/e2e tests/k8s

# Real servers have real deadlines, and a shared machine may stall for longer. What failed has one more chance, alone;
# what passes only then is named by the last lines.
ONCE_MORE := --last-failed --last-failed-no-failures none --verbose --cov --cov-append --cov-report=

test: lint check-proto servers
	$(PYTEST) --cov --cov-report= --durations=20 || { test $$? = 1 && $(BIN)/pytest $(ONCE_MORE); }
	$(BIN)/coverage report
	$(BIN)/python -m tools.branch_coverage 95

# With a network and with large programs of others.
test-integrations: $(DEV)
	$(PYTEST) tests/integrations

# Render and check the Kubernetes manifests.
k8s: $(DEV)
	$(PYTEST) tests/k8s

# Redis, Prometheus and Triton for the tests.
servers: $(DEV)
	sh stack/provide-redis.sh
	sh stack/provide-prometheus.sh
	sh stack/provide-triton.sh $(BIN)/python

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PROTO := samserve/v1/segmentation.proto
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos \
    --python_out=$(1) --mypy_out=quiet:$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTO)

proto: $(DEV)
	$(call PROTOC,service)

check-proto: $(DEV)
	@rm -rf $(VENV)/proto && mkdir $(VENV)/proto
	$(call PROTOC,$(VENV)/proto)
	@diff -r -x __init__.py -x __pycache__ $(VENV)/proto/samserve/v1 service/samserve/v1 || { \
	    echo "the generated code differs from the proto: make proto, and commit it" >&2; exit 1; }
	@if command -v npx >/dev/null; then cd protos && npx --yes @bufbuild/buf@1.75.0 lint; \
	    else echo "buf lint skipped: install npm to run it" >&2; fi

# The API reference in docs/reference, from the proto and the client. A test compares.
reference: $(DEV)
	$(BIN)/python -m tools.reference

# The synchronous client, from the asynchronous one. A test compares.
unasync: $(DEV)
	$(BIN)/python -m tools.unasync

venv: $(RUNTIME)

venv-dev: $(DEV)

clean:
	rm -rf $(VENV)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "samserve needs Python 3.11 or newer, and $(PYTHON) is older or missing; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make a virtual environment; install it first: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

$(RUNTIME): pyproject.toml | $(BIN)/pip
	@echo "installing samserve into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[server]'
	@touch $@

$(STACK): pyproject.toml | $(BIN)/pip
	@echo "installing samserve and Envoy into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[stack]'
	@touch $(RUNTIME) $@

$(LOAD): pyproject.toml | $(BIN)/pip
	@echo "installing samserve and what its load test needs into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[load]'
	@touch $(RUNTIME) $@

$(UNIT): pyproject.toml | $(BIN)/pip
	@echo "installing samserve and what its unit tests need into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[unit]'
	@touch $(RUNTIME) $(STACK) $(LOAD) $@

$(DEV): pyproject.toml | $(BIN)/pip
	@echo "installing samserve and what its tests need into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(RUNTIME) $(STACK) $(LOAD) $(UNIT) $@
