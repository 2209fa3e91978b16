# Needs make, bash and Python 3.10 or newer; `make help` lists the targets.
# Another Python: make PYTHON=python3.12 test

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
DEMO ?= .venv/bin/python examples/demo.py
NATIVE_BUILD ?= build/native
MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A room that appears or moves changes the mapping, and code for processors is compiled when the package is installed:
# the editable installs are made again.
MAPPING := setup.py pyproject.toml constraints.txt runtime/_version.py $(wildcard */__init__.py) \
	$(wildcard runtime/native/cpu/*)

NATIVE_PACKAGES := cmake g++ make pkg-config libssl-dev nlohmann-json3-dev \
	libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev \
	gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly

define check_python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "error: uare-rt needs Python 3.10 or newer, '$(PYTHON)' is not: make PYTHON=python3.12 ..." >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "error: '$(PYTHON)' cannot make virtual environments: install python3-venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
endef

.PHONY: help
help:
	@echo "make demo         restore the bundled clip with the shipped model (no torch)"
	@echo "make test         lint, type check and the quick Python tests (no root)"
	@echo "make test-native  compile the C library and run its tests (installs Debian packages as root)"
	@echo "make test-all     the quick tests, then slow, soak and fuzz ones; writes tests/results/test-all.txt"
	@echo "make lint         ruff and mypy"
	@echo "make wheel        wheel and source archive in dist/"
	@echo "make native       compile the C library and the GStreamer elements"
	@echo "make fuzz-native  fuzz the C interface (needs clang); writes tests/results/fuzz-native.txt"
	@echo "make sanitize-elements  the GStreamer elements under sanitizers"
	@echo "make clean        remove everything that these targets made"

.venv/.ready: $(MAPPING)
	$(check_python)
	@echo "installing the base package into .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv-test/.ready: $(MAPPING)
	$(check_python)
	@echo "installing the package and what its tests need into .venv-test"
	@$(PYTHON) -m venv .venv-test
	@.venv-test/bin/python -m pip install -q -c constraints.txt -e ".[test]"
	@touch $@

.PHONY: demo
demo: .venv/.ready
	@$(DEMO)

# mypy does not follow the mapping of setup.py: it is shown runtime/ under the name that it is imported by.
build/typing/uare_rt:
	@mkdir -p $(@D)
	@ln -s ../../runtime $@

.PHONY: lint
lint: .venv-test/.ready | build/typing/uare_rt
	.venv-test/bin/ruff check .
	MYPYPATH=build/typing .venv-test/bin/mypy -p uare_rt

# PyTorch after OpenVINO, ONNX Runtime and FFmpeg in one process crashed in PyTorch's threads: its rooms get their own.
TORCH_TESTS := tests/export tests/model tests/training
# Triton's interpreter fails after PyTorch's exporter has run in the same process.
KERNEL_TESTS := tests/kernels
# Needs the compiled library: make test-native.
NATIVE_TESTS := tests/native
APART := $(patsubst %,--ignore=%,$(TORCH_TESTS) $(KERNEL_TESTS) $(NATIVE_TESTS))

# Most tests keep one core busy: two groups side by side, each shown when it is done.
.PHONY: test
test: lint
	@echo "tests: two groups side by side, some ten minutes on two cores; each is shown when it is done"
	@$(MAKE) -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) test-models test-runtime

.PHONY: test-models
test-models: .venv-test/.ready
	.venv-test/bin/python -m pytest -q $(TORCH_TESTS)
	.venv-test/bin/python -m pytest -q $(KERNEL_TESTS)

.PHONY: test-runtime
test-runtime: .venv-test/.ready
	.venv-test/bin/python -m pytest -q $(APART)

# The quick tests have passed by then; PyTorch's rooms have none of the others.
LONG := -q -m "slow or soak or fuzz" -rsxX --durations=0

.PHONY: test-all
test-all: test
	@mkdir -p tests/results
	@{ \
		echo "command: make test-all (tests marked slow, soak or fuzz; the quick ones passed before)"; \
		echo "date: $$(date -u +%Y-%m-%d)"; \
		echo "commit: $$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"; \
		echo "machine: $$(uname -srm), $$(nproc) cores"; \
		echo "packages: $$(.venv-test/bin/python -V), $$(.venv-test/bin/python -m pip freeze --exclude-editable | paste -sd ' ')"; \
		echo; \
	} > tests/results/test-all.txt
	.venv-test/bin/python -m pytest $(LONG) $(KERNEL_TESTS) | tee -a tests/results/test-all.txt
	.venv-test/bin/python -m pytest $(LONG) $(APART) | tee -a tests/results/test-all.txt

.PHONY: native-packages
native-packages:
	@command -v dpkg-query > /dev/null \
		|| { echo "error: no dpkg here: install what Debian calls $(NATIVE_PACKAGES), then run make native" >&2; exit 1; }
	@missing=""; \
	for package in $(NATIVE_PACKAGES); do \
		dpkg-query -W -f '$${Status}\n' "$$package" 2>/dev/null | grep -q '^install ok installed$$' || missing+=" $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=""; \
	elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then as_root="sudo"; \
	else echo "error: packages are missing and this is not root: apt-get install$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; \
	$$as_root apt-get update -qq < /dev/null; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing < /dev/null > /dev/null

# OpenVINO's headers, libraries and CMake files come with its Python package.
.venv-native/.ready: $(MAPPING)
	$(check_python)
	@echo "installing the package with OpenVINO into .venv-native"
	@$(PYTHON) -m venv .venv-native
	@.venv-native/bin/python -m pip install -q -c constraints.txt -e ".[openvino]" pytest
	@touch $@

OPENVINO = $(shell .venv-native/bin/python -c 'import importlib.util as u; print(u.find_spec("openvino").submodule_search_locations[0])')
NATIVE_OPTIONS = -DUARE_TESTS=ON -DUARE_GSTREAMER=ON -DUARE_OPENVINO=ON -DOpenVINO_DIR=$(OPENVINO)/cmake

.PHONY: native
native: .venv-native/.ready
	@command -v cmake > /dev/null && command -v c++ > /dev/null \
		|| { echo "error: cmake and a C++ compiler are needed: apt-get install $(NATIVE_PACKAGES)" >&2; exit 1; }
	cmake -S . -B $(NATIVE_BUILD) $(NATIVE_OPTIONS)
	cmake --build $(NATIVE_BUILD) --parallel 2

.PHONY: test-native
test-native: native-packages
	$(MAKE) native
	ctest --test-dir $(NATIVE_BUILD) --output-on-failure --no-tests=error
	UARE_NATIVE_BUILD=$(NATIVE_BUILD) .venv-native/bin/python -m pytest -q -p no:cacheprovider tests/native
	$(MAKE) sanitize-native
	@echo "native tests passed"

# The null engine under sanitizers: OpenVINO and its threads are not built with them.
.PHONY: sanitize-native
sanitize-native:
	@for sanitizer in address,undefined thread; do \
		build=$(NATIVE_BUILD)-$${sanitizer%%,*}; \
		cmake -S . -B $$build -DUARE_TESTS=ON -DUARE_SANITIZE=$$sanitizer > /dev/null; \
		cmake --build $$build --parallel 2; \
		ctest --test-dir $$build --output-on-failure --no-tests=error; \
	done

# The elements under sanitizers; apart, because every plugin of the system is loaded into the same process.
.PHONY: sanitize-elements
sanitize-elements:
	cmake -S . -B $(NATIVE_BUILD)-elements -DUARE_TESTS=ON -DUARE_GSTREAMER=ON -DUARE_SANITIZE=address,undefined > /dev/null
	cmake --build $(NATIVE_BUILD)-elements --parallel 2
	ASAN_OPTIONS=fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/native/leaks.supp \
		ctest --test-dir $(NATIVE_BUILD)-elements --output-on-failure --no-tests=error

# Needs clang and libclang-rt-dev: a million runs of options and frames. The result is for git.
FUZZ_RUNS ?= 1000000
.PHONY: fuzz-native
fuzz-native:
	CC=clang CXX=clang++ cmake -S . -B $(NATIVE_BUILD)-fuzz -DUARE_TESTS=ON -DUARE_FUZZ=ON -DUARE_SANITIZE=address,undefined
	cmake --build $(NATIVE_BUILD)-fuzz --parallel 2 --target fuzz_abi
	@mkdir -p tests/results
	@{ \
		echo "command: make fuzz-native"; \
		echo "date: $$(date -u +%Y-%m-%d)"; \
		echo "commit: $$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"; \
		echo "machine: $$(uname -srm), $$(nproc) cores, $$(clang --version | head -1)"; \
		echo; \
	} > tests/results/fuzz-native.txt
	$(NATIVE_BUILD)-fuzz/tests/native/fuzz_abi -runs=$(FUZZ_RUNS) -seed=1 -max_len=512 -print_final_stats=1 2>&1 \
		| grep -E '^(INFO: Seed|Done|stat::)|ERROR|SUMMARY' | tee -a tests/results/fuzz-native.txt

# build/lib keeps files that were deleted since: a wheel must not pick them up.
.PHONY: wheel
wheel: .venv-test/.ready
	rm -rf build/lib* build/bdist.* dist
	.venv-test/bin/python -m build --no-isolation --outdir dist .

.PHONY: clean
clean:
	rm -rf .venv .venv-test .venv-native runtime/libuare_cpu.* build dist demo-output *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
