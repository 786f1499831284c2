"""What strikes the drill's stage: each kind of fault, whom it hits and how it ends. Knows no bars and no results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import httpx
import psutil

from tests.integration.cluster.drill import TRIAL_CLASS, Stage, kill_all, say, wait_for

LIMIT_S = 180.0
_ATTEMPTS = 5
_PAUSE_S = 2.0


@dataclass
class Struck:
    """What a fault hit.

    Attributes:
        victim: In words.
        needs_driver: Whether the sweep must be submitted again.
        away_s: Seconds that the fault itself goes on for, after which ``heal`` is called.
        heal: Ends the fault, where it does not end by itself.
        at_s: When it was hit, on the monotonic clock.
    """

    victim: str
    needs_driver: bool = False
    away_s: float = 0.0
    heal: Callable[[], object] = lambda: None
    at_s: float = 0.0


def kill_pid(pid: int) -> None:
    """SIGKILL to one process."""
    kill_all([psutil.Process(pid)])


def trial(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of a trial, which is its EnvRunner's process too."""
    actor = rng.choice(scene.some(TRIAL_CLASS))
    kill_pid(actor["pid"])
    return Struck(f"trial, pid {actor['pid']} on {scene.node_of(actor)}")


def replica(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of a tutor's replica."""
    actor = rng.choice(scene.some("TutorReplica"))
    kill_pid(actor["pid"])
    return Struck(f"replica, pid {actor['pid']} on {scene.node_of(actor)}")


def engine(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the vLLM process below a replica."""
    actor = rng.choice(scene.some("TutorReplica"))
    children = psutil.Process(actor["pid"]).children(recursive=True)
    if not children:
        raise LookupError(f"replica {actor['pid']} has no engine")
    largest = max(children, key=lambda process: process.memory_info().rss)
    kill_all([largest])
    return Struck(f"engine process, pid {largest.pid} of replica {actor['pid']}")


def gateway(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the gateway."""
    actor = rng.choice(scene.some("TutorGateway"))
    kill_pid(actor["pid"])
    return Struck(f"gateway, pid {actor['pid']}")


def controller(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of Serve's controller."""
    actor = rng.choice(scene.some("SERVE_CONTROLLER"))
    kill_pid(actor["pid"])

    def heal() -> None:
        """The tutor answers meanwhile; what counts is that the next controller takes it over."""
        wait_for(lambda: scene.serve_runs(without=actor["pid"]), LIMIT_S, "the next controller")

    return Struck(f"Serve controller, pid {actor['pid']}", heal=heal)


def tutor_node(scene: Stage, rng: random.Random) -> Struck:
    """Power loss of the node that holds the tutor; another one joins."""
    name = scene.node_of(rng.choice(scene.some("TutorReplica")))
    scene.nodes.kill(name)
    return Struck(f"node {name}", heal=scene.add_tutor_node)


def student_node(scene: Stage, rng: random.Random) -> Struck:
    """Power loss of a node with trials; another one joins."""
    name = scene.node_of(rng.choice(scene.some(TRIAL_CLASS)))
    scene.nodes.kill(name)
    return Struck(f"node {name}", heal=scene.add_student_node)


def mlflow(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the MLflow server, which is away for a while."""
    scene.mlflow.kill()
    return Struck("MLflow server", away_s=20.0, heal=scene.mlflow.start)


def driver(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the sweep's driver; the sweep is submitted again."""
    processes = scene.drivers()
    kill_all(processes)
    return Struck(f"driver, pid {', '.join(str(process.pid) for process in processes)}", needs_driver=True)


def partition(scene: Stage, rng: random.Random) -> Struck:
    """A node with trials is off the network for as long as Ray needs to give it up; then it is back."""
    name = scene.node_of(rng.choice(scene.some(TRIAL_CLASS)))
    stack = ExitStack()
    how = stack.enter_context(scene.nodes.cut_off(name))

    def heal() -> None:
        stack.close()
        # A raylet that finds itself given up ends; what stands for the machine starts it again.
        scene.nodes.kill(name)
        scene.add_student_node()

    return Struck(f"node {name}, {how}", away_s=45.0, heal=heal)


FAULTS: dict[str, Callable[[Stage, random.Random], Struck]] = {
    "trial": trial,
    "replica": replica,
    "engine": engine,
    "gateway": gateway,
    "controller": controller,
    "student_node": student_node,
    "mlflow": mlflow,
    "driver": driver,
    "tutor_node": tutor_node,
    "partition": partition,
}
"""Every kind of fault, in the order in which they strike."""

QUICK = ("trial", "gateway", "driver")


def strike(name: str, scene: Stage, rng: random.Random) -> Struck:
    """Strikes; draws again where a victim has ended by itself since Ray named it.

    Raises:
        TimeoutError: There was nobody to hit.
    """
    for _ in range(_ATTEMPTS):
        started = time.monotonic()
        try:
            return replace(FAULTS[name](scene, rng), at_s=started)
        except (psutil.NoSuchProcess, LookupError, httpx.HTTPError) as error:
            say(f"{name}: missed, {error}")
            time.sleep(_PAUSE_S)
    raise TimeoutError(f"{name}: nobody to hit, {_ATTEMPTS} times")
