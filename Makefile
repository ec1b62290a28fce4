# Two commands are all one needs:   make figures   and   make test
# Each makes the virtual environment when it is missing. PYTHON=… and PROFILE=… may be given.
PYTHON  ?= python3
PROFILE ?= digits
VENV    ?= .venv
WORKERS ?= 2
BIN      = $(VENV)/bin
READY    = $(VENV)/.ready

.PHONY: figures figures-all test test-all lab site sync notebooks readme clean

figures: $(READY)
	$(BIN)/selmatch figures --profile $(PROFILE) --workers $(WORKERS)

# the long ones, too: about an hour for digits (selmatch figures --all --estimate)
figures-all: $(READY)
	$(BIN)/selmatch figures --profile $(PROFILE) --workers $(WORKERS) --all

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# what takes long, too: every lesson run, every figure drawn twice, the wheel; and which lines and
# branches nothing ran (build/coverage/index.html)
test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "" --cov --cov-report=term --cov-report=html:build/coverage

lab: $(READY)
	$(BIN)/jupyter lab nbs

# what one shows around: build/site/index.html, from the notebooks and figures as they are (nothing
# is run); its front page shows the images and numbers of PROFILE
site: $(READY)
	$(BIN)/python site/make.py --profile $(PROFILE)

# after editing a notebook: clean it and export the package
sync: $(READY)
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

# run the library notebooks and keep their outputs, so that they read well on the web
notebooks: $(READY)
	$(BIN)/python tests/run_notebooks.py
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

# the README's table of results, from its CSV
readme: $(READY)
	$(BIN)/python scripts/write_readme.py

$(READY): settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selmatch needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": give PYTHON=python3.11")'
	@echo "Making the virtual environment $(VENV) (PyTorch is large: about two minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf .selmatch .pytest_cache .coverage* build *.egg-info
