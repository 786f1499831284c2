"""Run a submitted job on the cluster: look at every node that trials may land on, then run the sweep.

python -m tune_sweeps.cluster.job_entry --results FOLDER -- sweep sweep.yaml --name NAME
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_sweeps.storage.remote import Remote, is_url
from tutor_service.errors import UserError
from tutor_service.local_ray import leave_ray

READY = "[submit] the nodes are fit; the sweep begins"
REFUSED = "[submit] the sweep does not begin: "
NODE_TIMEOUT_S = 8.0


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node says.

    Attributes:
        host: Its name.
        python: Python's version.
        project: Version of this project; empty where it is not installed.
        sees_marker: Whether the file that the head wrote is there.
        problem: Why the results folder, or object store, cannot be written; empty where it can.
    """

    host: str
    python: str
    project: str
    sees_marker: bool
    problem: str


def look(results: str, marker: str) -> NodeReport:
    """Look at the node that it runs on.

    Args:
        results: The results folder, or an object store's address.
        marker: Name of the file in it that the head has written.
    """
    import importlib.metadata

    try:
        project = importlib.metadata.version("llm-tutors")
    except importlib.metadata.PackageNotFoundError:
        project = ""
    problem = unwritable(results)
    return NodeReport(
        socket.gethostname(), platform.python_version(), project, not problem and _sees(results, marker), problem
    )


def _sees(results: str, marker: str) -> bool:
    if is_url(results):
        return Remote(results).modified(marker) is not None
    return (Path(results) / marker).exists()


@contextmanager
def _marked(results: str, marker: str) -> Iterator[None]:
    """Have a file that every node should see, within a ``with`` block."""
    if is_url(results):
        remote = Remote(results)
        with remote.answering():
            remote.write(b"", marker)
            try:
                yield
            finally:
                remote.remove(marker)
        return
    path = Path(results) / marker
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def unwritable(folder: str) -> str:
    """Say why a folder, or an object store, cannot be written, or nothing where it can; make a missing folder."""
    if is_url(folder):
        try:
            Remote(folder).check_writable()
        except UserError as error:
            return str(error)
        return ""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def check_reports(reports: Sequence[NodeReport], head: NodeReport, results: str) -> None:
    """Refuse nodes that are not fit for trials that write where the head reads.

    Raises:
        UserError: One of them is not; names the node and what is wrong there.
    """
    for report in reports:
        where = f"on node '{report.host}'"
        if report.project != head.project:
            raise UserError(
                f"{where} llm-tutors is {report.project or 'not installed'}, on the head {head.project or 'not'}. All "
                "nodes need one image."
            )
        if report.problem and is_url(results):
            raise UserError(f"{where}: {report.problem}")
        if report.problem:
            raise UserError(
                f"the results folder '{results}' cannot be written {where} ({report.problem}). It must be a folder "
                "that all nodes share: give another with --results."
            )
        if not report.sees_marker:
            raise UserError(
                f"the results folder '{results}' {where} is another one than the head's. Trials resume on any node, "
                "so it "
                "must be on a file system that all nodes share: give another with --results."
            )


def check_nodes(results: str, timeout_s: float = NODE_TIMEOUT_S) -> int:
    """Have every node that announces CPUs look at itself; a node that is too busy to answer is passed over.

    Args:
        results: The results folder.
        timeout_s: Most seconds to wait for the nodes.

    Returns:
        How many nodes answered, the head included.

    Raises:
        UserError: A node is not fit.
    """
    if problem := unwritable(results):
        if is_url(results):
            raise UserError(f"on the cluster's head: {problem}")
        raise UserError(
            f"the results folder '{results}' cannot be written on the cluster's head ({problem}). Give a folder that "
            "all nodes share with --results."
        )
    marker = f".nodes-{uuid.uuid4().hex}"
    with _marked(results, marker):
        head = look(results, marker)
        reports = _ask_nodes(results, marker, timeout_s)
        check_reports(reports, head, results)
        return 1 + len(reports)


def _ask_nodes(results: str, marker: str, timeout_s: float) -> list[NodeReport]:
    import logging

    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    try:
        here = ray.get_runtime_context().get_node_id()
        task = ray.remote(num_cpus=0, max_retries=0)(look)
        tasks = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                results, marker
            )
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] != here
        ]
        done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=timeout_s) if tasks else ([], [])
        return [report for item in done if (report := _report(item)) is not None]
    finally:
        leave_ray()


def _report(task: Any) -> NodeReport | None:
    """Return what a node says; None where it is gone.

    Raises:
        UserError: It cannot look at itself.
    """
    import ray

    try:
        report: NodeReport = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise UserError(
            f"a node of the cluster cannot look at itself: {' '.join(str(error.cause or error).split())}. All nodes "
            "need one image."
        ) from error
    except ray.exceptions.RayError:
        return None
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a script; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--results", required=True, help="results folder that all nodes share, or s3://BUCKET/PATH")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="arguments of `tutor`, after --")
    args = parser.parse_args(arguments)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    folder = Path.cwd()
    try:
        nodes = check_nodes(args.results)
    except UserError as error:
        print(f"{REFUSED}{error}", file=sys.stderr, flush=True)
        return 2
    print(f"{READY} ({nodes} looked at)", flush=True)
    os.chdir(folder)  # where nodes share a machine, Ray may have made the folder anew meanwhile
    os.execv(sys.executable, [sys.executable, "-c", "from tune_sweeps.cli.app import main; main()", *command])


if __name__ == "__main__":
    sys.exit(main())
