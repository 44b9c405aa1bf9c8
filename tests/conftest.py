"""``pytest --works-with=FILE``: write what the tests marked ``works_with`` show, as a table.

With ``=``: a path by itself would be taken for that of a test."""

from __future__ import annotations

import os

# Before torch is imported: the workers are as many as the cores, and each would take all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import works_with


def pytest_addoption(parser):
    parser.addoption("--works-with", metavar="FILE", help="write the table of what works with what")


def pytest_configure(config):
    if config.getoption("--works-with"):
        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("--works-with sees the tests of its own process only: add -n 0")
        config.pluginmanager.register(works_with.Table(config.getoption("--works-with")))
