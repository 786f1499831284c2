"""The examples in docstrings of classes and functions that users meet."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "rllib_plugins.advising.reuse",
    "rllib_plugins.advising.rules",
    "rllib_plugins.evaluation_plan",
    "rllib_plugins.grading.grade",
    "rllib_plugins.seeds",
    "rllib_plugins.tasks.base",
    "rllib_plugins.tasks.registry",
    "rllib_plugins.yardsticks",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0
