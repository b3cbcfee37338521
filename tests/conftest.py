import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it, and for every process that a test starts
os.environ.setdefault("PYTHONHASHSEED", "0")  # of the workers of xdist and of every process that a test starts
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for a network, or for its absence

import multiprocessing
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import drawing

THREADS = int(os.environ["OMP_NUM_THREADS"])

# Imported once for all processes that tests start. Modules of the tests would not be found: before Python 3.13 the server
# does not get the path that pytest adds, and says nothing.
multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "cegm.lab.train.run"])


def pytest_configure(config):
    """The short suite draws what it always drew; with any other choice of marks, hypothesis draws anew."""
    drawing.draw("same" if config.option.markexpr == "not long" else "new")
    if folder := os.environ.get("CEGM_TEST_MARGINS"):
        from margins import Margins  # which reaches into one version of pytest

        config.pluginmanager.register(Margins(Path(folder)))


LONGEST = ("tests/test_sharding.py", "tests/lab/compare/test_survival.py")
"""Files with a test of a minute: they come first, so that no worker waits for another at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Under `-m long`, properties are tried too, with many more examples; CEGM_TEST_BACKWARDS begins with the last test."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    if os.environ.get("CEGM_TEST_BACKWARDS"):
        items.reverse()
    if config.option.markexpr == "long":
        for item in items:
            if hypothesis.is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker("long")
                item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(autouse=True)
def threads_and_a_seed():
    """Every test starts from the same random state and, unless OMP_NUM_THREADS says otherwise, leaves the cores to its neighbours."""
    drawing.as_chosen()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
