"""The examples in the service's documentation strings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["tutor_service.client.client", "tutor_service.store.lmdb_store"])
def test_examples_run(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted >= 4 and not found.failed
