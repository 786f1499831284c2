"""A Ray of one's own can be reached from this machine alone, and is left without ending the process."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
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


LEAVES_WHILE_GARBAGE_COMES = """
import threading
import ray
from tutor_service.local_ray import leave_ray, start_local_ray

class Cycle:
    pass

start_local_ray(1)
held = []
for _ in range(20_000):
    cycle = Cycle()
    cycle.itself, cycle.reference = cycle, ray.put(1)
    held.append(cycle)

def churn():
    while held:
        held.pop()
        [Cycle() for _ in range(800)]

threading.Thread(target=churn, daemon=True).start()
leave_ray()
print("goes on")
"""


def test_a_process_outlives_its_ray_while_another_of_its_threads_drops_references() -> None:
    """Ray ends a process at once, without a word on stdout, where that happens while it shuts down."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_WHILE_GARBAGE_COMES], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "goes on\n" and done.returncode == 0, done.stderr
