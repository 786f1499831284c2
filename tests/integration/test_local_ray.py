"""A Ray of one's own can be reached from this machine alone."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator

import psutil
import pytest
import ray

from tutor_service.local_ray import leave_ray, start_local_ray


@pytest.fixture
def local_ray() -> Iterator[None]:
    start_local_ray(1)
    yield
    leave_ray()


def test_nothing_of_it_listens_on_another_interface(local_ray: None) -> None:
    assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 5
    outside = {at for at in listening if not ipaddress.ip_address(at.ip.removeprefix("::ffff:")).is_loopback}
    assert not outside
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
