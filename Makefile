# Hearth: run, test, check and train. Needs Python 3.11 or newer, a C++ compiler and make; brings uv into .tools/ by itself.
# Without make: `uv run hearth`, `uv run pytest`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test check bench train setup

PYTHON ?= python3
ARGS ?=

UV_VERSION := 0.13.8
UV := .tools/uv/bin/uv
BIN := .venv/bin

# The accelerator of the last setup stays chosen until another is named.
INSTALLED_ACCEL := $(shell cat .venv/.accel 2>/dev/null || echo cpu)
ACCEL ?= $(INSTALLED_ACCEL)
CMAKE_cpu :=
CMAKE_cuda := -DGGML_CUDA=on
CMAKE_vulkan := -DGGML_VULKAN=on
CMAKE_hip := -DGGML_HIP=on
CMAKE_metal := -DGGML_METAL=on
ifeq ($(filter cpu cuda vulkan hip metal,$(ACCEL)),)
$(error ACCEL=$(ACCEL) is not an accelerator: use cpu, cuda, vulkan, hip or metal)
endif

# The package is a tree of links to the sources, so a file added or removed needs a new setup; an edited one does not.
SOURCES := $(shell find app models multimodal store assets -name '*.py' 2>/dev/null | LC_ALL=C sort | cksum | tr ' ' '-')
SETUP := .venv/.setup-$(ACCEL)-$(SOURCES)

help:
	@echo 'make run     the web UI on http://127.0.0.1:7860    ARGS="--port 8000" goes to hearth'
	@echo '             ACCEL=cuda|vulkan|hip|metal|cpu builds llama.cpp for that accelerator, once'
	@echo 'make test    the tests                              ARGS="-k pictures" goes to pytest'
	@echo 'make check   format, lint, types and import rules'
	@echo 'make bench   time of the first answer about a picture, stage by stage'
	@echo 'make train   trains the embedded models again'
	@echo 'make setup   installs everything into .venv without starting anything'

run: $(SETUP)
	@$(BIN)/hearth $(ARGS)

test: $(SETUP)
	@$(BIN)/pytest $(ARGS)

check: $(SETUP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest tests/test_import_rules.py

bench: $(SETUP)
	@$(BIN)/python benchmarks/ask.py $(ARGS)

train: $(SETUP)
	@$(BIN)/python -m training.pocket $(ARGS)
	@$(BIN)/python -m training.export_graph
	@$(BIN)/python -m training.speech $(ARGS)

setup: $(SETUP)

# Another accelerator means another build of the same version, which uv's cache cannot tell apart: it is built outside
# the cache, after everything else is in place, so that nothing else is fetched again.
$(SETUP): pyproject.toml uv.lock | $(UV)
	@command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
	  echo 'make: no C++ compiler found; it is needed to build llama.cpp. Debian: apt install g++. macOS: xcode-select --install' >&2; exit 1; }
	@$(call check_$(ACCEL))
	@rm -f .venv/.setup-*
ifeq ($(ACCEL),$(INSTALLED_ACCEL))
	@echo 'Setting up .venv (the first time llama.cpp is compiled: some minutes)' >&2
	@$(UV) sync --frozen
else
	@echo 'Building llama.cpp for $(ACCEL) (some minutes)' >&2
	@$(UV) sync --frozen --inexact --no-install-package llama-cpp-python
	@CMAKE_ARGS="$$CMAKE_ARGS $(CMAKE_$(ACCEL))" $(UV) sync --frozen --no-cache --reinstall-package llama-cpp-python || { \
	  echo 'make: llama.cpp could not be built for $(ACCEL), the reason stands above; `make run ACCEL=cpu` works without it' >&2; exit 1; }
endif
	@echo $(ACCEL) > .venv/.accel
	@touch $@

define check_cpu
true
endef

define check_cuda
command -v "$${CUDACXX:-nvcc}" >/dev/null || { \
  echo 'make: ACCEL=cuda needs the CUDA toolkit, and nvcc is not on the PATH (often /usr/local/cuda/bin)' >&2; exit 1; }; \
printf '#include <cublas_v2.h>\n' | "$${CUDACXX:-nvcc}" -E -x cu - >/dev/null 2>&1 || { \
  echo 'make: ACCEL=cuda needs the whole CUDA toolkit: nvcc is here, but it finds no cublas_v2.h' >&2; exit 1; }
endef

define check_vulkan
command -v glslc >/dev/null && printf '#include <vulkan/vulkan.h>\n#include <spirv/unified1/spirv.hpp>\n' | $${CXX:-c++} -E -x c++ - >/dev/null 2>&1 || { \
  echo 'make: ACCEL=vulkan needs glslc and the Vulkan and SPIR-V headers. Debian: apt install glslc libvulkan-dev spirv-headers' >&2; exit 1; }
endef

define check_hip
command -v hipcc >/dev/null || { \
  echo 'make: ACCEL=hip needs ROCm, and hipcc is not on the PATH (often /opt/rocm/bin)' >&2; exit 1; }
endef

define check_metal
test "$$(uname -s)" = Darwin || { echo "make: ACCEL=metal needs macOS, this is $$(uname -s)" >&2; exit 1; }
endef

# In a virtual environment of its own; without the venv module (Debian without python3-venv) pip alone does as well.
$(UV):
	@python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: Hearth needs Python 3.11 or newer, $$($(PYTHON) --version 2>&1 | head -n 1) was found; name another with PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	rm -rf .tools/uv; mkdir -p .tools; \
	echo 'Installing uv $(UV_VERSION) into .tools' >&2; \
	{ "$$python" -m venv .tools/uv >/dev/null 2>&1 && .tools/uv/bin/python -m pip install --quiet uv==$(UV_VERSION); } || { \
	  rm -rf .tools/uv; "$$python" -m pip install --quiet --target .tools/uv uv==$(UV_VERSION); } || { \
	  rm -rf .tools/uv; \
	  echo 'make: uv could not be installed: it needs the venv or the pip module (Debian: apt install python3-venv) and PyPI' >&2; exit 1; }
