"""One cluster with token authentication and a dashboard for all who need one: a head, and a node for students."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.nodes import Nodes, nodes


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    home = tmp_path_factory.mktemp("home")
    with nodes(LLM_TUTORS_TOKEN="sesame", LLM_TUTORS_HOME=str(home)) as found:
        found.start_head(0, {"advice_store": 1})  # as the cluster files do: drivers need no CPUs, trials go elsewhere
        found.add("students", 1)
        yield found
