"""A local Ray that is slow to start is tried again, and nothing of a failed start stays."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray._private.node import Node

from tutor_service.local_ray import start_local_ray


class SlowNode(Node):
    """Starts nothing, too late."""

    def __init__(self) -> None:
        self.ended = 0

    def start(self) -> None:
        raise Exception("The current node timed out during startup.")

    def kill_all_processes(self, *args: Any, **kwargs: Any) -> None:
        self.ended += 1


@pytest.mark.parametrize("failures", [1, 3])
def test_a_slow_start_is_ended_and_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[SlowNode] = []
    started: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        if len(nodes) < failures:
            nodes.append(SlowNode())
            nodes[-1].start()
        started.append(options)

    monkeypatch.setattr(ray, "init", init)
    if failures == 3:
        with pytest.raises(Exception, match="timed out"):
            start_local_ray(2)
        assert not started
    else:
        start_local_ray(2, resources={"x": 1})
        assert started[0]["num_cpus"] == 2 and started[0]["resources"] == {"x": 1}
        assert started[0]["_node_ip_address"] == "127.0.0.1" and not started[0]["include_dashboard"]
    assert [node.ended for node in nodes] == [1] * failures
