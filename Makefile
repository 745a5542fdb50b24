# Needs GNU make and Python 3.11 or newer; everything else is installed into .venv.
#   PYTHON=...     the interpreter to build .venv with
#   PIP_ARGS=...   extra options for pip
#   LAB_ARGS=...   extra options for JupyterLab, such as "--no-browser --port 8890"
#   FORCE=1        make notebooks executes all of them

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c "" 2>/dev/null && { echo $$p; break; }; done)
PIP_ARGS ?=
LAB_ARGS ?=
FORCE ?=

RUN := .venv/bin/python
# Threads that wait in a loop bring two processes on two cores to a halt.
export OMP_WAIT_POLICY ?= passive
# Scripts in a virtual environment hold its path, so a folder that was moved or copied gets a new environment.
MADE := .venv/made-$(shell pwd | cksum | tr -d ' ')
# What belongs to a source, so that a learner's copies are left alone; a test tells if one of them is missing.
SOURCES = $(wildcard notebooks/source/[0-9]*.py solutions/source/[0-9]*.py)
NOTEBOOKS = $(wildcard $(patsubst %.py,%.ipynb,$(subst /source/,/,$(SOURCES))))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab test test-matrix notebooks colab

help: ## list the targets
	@echo "make TARGET, with one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F '|' '{ printf "%-16s%s\n", $$1, $$2 }'

lab: .venv/installed-lab ## open JupyterLab on the first notebook
	@.venv/bin/course lab $(LAB_ARGS)

test: .venv/installed-test .venv/installed-colab ## run all tests, and every notebook and solution against its stored outputs
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --nbval --nbval-current-env tests $(NOTEBOOKS)

test-matrix: .venv/installed-test ## run notebooks and solutions on every instruction set and thread count
	@$(RUN) -m tools.matrix

notebooks: .venv/installed-test ## build notebooks, solutions and exercises from their sources
	@$(RUN) -m tools.notebooks $(if $(FORCE),--force)

colab: .venv/installed-test ## write notebooks for Colab into dist/colab, with the library inside
	@$(RUN) -m tools.colab

$(MADE):
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
		echo "This course needs Python 3.11 or newer; '$(PYTHON)' is older or missing." \
			"Install one and run: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c "import ensurepip, venv" 2>/dev/null || { \
		echo "'$(PYTHON)' comes without venv or ensurepip. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Creating .venv with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear .venv
	@touch $@

# pip may stop half-way; the stamp is written last, so that the next call begins again. [test] brings all of [lab].
.venv/installed-%: pyproject.toml constraints.txt $(MADE)
	@echo "Installing the $* environment into .venv (some minutes the first time)"
	@$(RUN) -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@$(RUN) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (ipykernel)" >/dev/null
	@touch $@ $(if $(filter test,$*),.venv/installed-lab)

# What Colab has in place of our own pins, in a folder of its own: tests/test_colab.py puts it before the rest.
.venv/installed-colab: tests/colab-pins.txt .venv/installed-test
	@$(RUN) -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) --no-deps --upgrade \
		--target .venv/colab -r tests/colab-pins.txt
	@touch $@
