"""Send a sweep to a cluster as a job, follow it and stop it.

All that can be known to be wrong is found before a job exists.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tune_sweeps.cluster.address import dashboard_url, keeps_secrets
from tune_sweeps.cluster.bundle import entrypoint, runtime_env, submission_id, write_bundle
from tune_sweeps.cluster.dashboard import ClusterFacts, read_facts
from tune_sweeps.cluster.job_entry import READY, REFUSED
from tune_sweeps.cluster.jobs import JobInfo, Jobs
from tune_sweeps.cluster.requirements import check_tutors, check_versions
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.loading import load_sweep
from tutor_service.client import service_url
from tutor_service.errors import UserError
from tutor_service.ray_probe import find_token
from tutor_service.tutor_files import load_tutor

DRIVER_CPUS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """A sweep to be sent.

    Attributes:
        preset: A preset's name, or the path of a sweep file.
        settings: Changes to it, ``key=value``.
        name: Name of the sweep; None: the preset's.
        results: Results folder on the cluster, shared by its nodes.
        tracking_uri: MLflow's address as the cluster sees it; None: ``$MLFLOW_TRACKING_URI``.
        code: Checkout whose packages replace the image's; None: the image's own.
        nodes_on_demand: Whether an autoscaler adds the nodes that are missing.
    """

    preset: str
    settings: Sequence[str]
    name: str | None
    results: str
    tracking_uri: str | None
    code: Path | None
    nodes_on_demand: bool


def submit(address: str, submission: Submission, follow: bool, say: Say, write: Say) -> int:
    """Send a sweep; it is continued where the cluster has a sweep of this name and configuration.

    Args:
        address: The cluster's dashboard.
        submission: What to send.
        follow: Whether to stay until the sweep's end; else until the cluster's nodes have been found fit.
        say: Takes lines for the user.
        write: Takes pieces of the job's output.

    Returns:
        The exit status: 0 where the job ended well, or runs on unfollowed.

    Raises:
        UserError: The sweep is not valid, the cluster cannot be reached or is not fit, or the sweep's job runs already.
    """
    config = _sweep(submission)
    url, token, facts = _cluster(address, say)
    check_versions(facts, version("ray"), platform.python_version())
    if not service_url():
        tutors = [load_tutor(name) for name in config.tutored]
        check_tutors(facts, tutors, submission.nodes_on_demand)
    jobs = Jobs(url, token)
    earlier = jobs.list()
    running = [job for job in earlier if job.sweep == config.name and not job.ended]
    if running:
        raise UserError(
            f"the sweep '{config.name}' runs on this cluster already, as job '{running[-1].id}'. Follow it with "
            f"`tutor jobs logs {config.name}`, or end it with `tutor jobs stop {config.name}`."
        )
    job_id = submission_id(config.name, [job.id for job in earlier])
    with tempfile.TemporaryDirectory(prefix="llm-tutors-") as folder:
        bundle = Path(folder)
        write_bundle(bundle, config)
        environment = runtime_env(
            bundle, submission.code, os.environ, submission.tracking_uri, submission.nodes_on_demand
        )
        jobs.submit(
            job_id,
            config.name,
            entrypoint(config.name, submission.results),
            environment,
            min(DRIVER_CPUS, facts.head_cpus),
        )
    say(f"sweep '{config.name}' is job '{job_id}' at {url}")
    return _attend(jobs, job_id, config.name, follow, say, write)


def logs(address: str, sweep: str, say: Say, write: Say) -> int:
    """Follow the latest job of a sweep to its end; return the exit status.

    Raises:
        UserError: The cluster cannot be reached, or has no job of that sweep.
    """
    url, token, _ = _cluster(address, say)
    jobs = Jobs(url, token)
    return _attend(jobs, jobs.of(sweep).id, sweep, True, say, write)


def stop(address: str, sweep: str, say: Say) -> None:
    """End the latest job of a sweep; what it finished stays, and submitting it again continues it.

    Raises:
        UserError: The cluster cannot be reached, or has no job of that sweep.
    """
    url, token, _ = _cluster(address, say)
    jobs = Jobs(url, token)
    job = jobs.of(sweep)
    if job.ended or not jobs.stop(job.id):
        say(f"job '{job.id}' of sweep '{sweep}' had ended already ({jobs.status(job.id).status})")
    else:
        say(f"job '{job.id}' of sweep '{sweep}' is being stopped; submit it again to continue")


def list_jobs(address: str, say: Say) -> list[JobInfo]:
    """List the jobs of sweeps on a cluster, oldest first.

    Raises:
        UserError: The cluster cannot be reached.
    """
    url, token, _ = _cluster(address, say)
    return Jobs(url, token).list()


def _sweep(submission: Submission) -> SweepConfig:
    settings = list(submission.settings)
    if submission.name is not None:
        settings.append(f"name={submission.name}")
    config = load_sweep(submission.preset, settings)
    for tutor in config.tutored:
        load_tutor(tutor)
    return config


def _cluster(address: str, say: Say) -> tuple[str, str | None, ClusterFacts]:
    url = dashboard_url(address)
    token = find_token(os.environ, Path.home())
    if token and not keeps_secrets(url):
        say(f"note: the token goes to {url} unencrypted. Prefer an SSH tunnel, `kubectl port-forward`, or https.")
    return url, token, read_facts(url, token)


def _attend(jobs: Jobs, job_id: str, sweep: str, follow: bool, say: Say, write: Say) -> int:
    """Follow a job as far as is asked for; return the exit status."""
    try:
        said = jobs.follow(job_id, write, [REFUSED] if follow else [REFUSED, READY])
    except KeyboardInterrupt:
        say(f"\nthe sweep goes on. Follow it: `tutor jobs logs {sweep}`; end it: `tutor jobs stop {sweep}`.")
        return 0
    if said == READY:
        say(f"the sweep runs. Follow it: `tutor jobs logs {sweep}`; end it: `tutor jobs stop {sweep}`.")
        return 0
    if said == REFUSED:  # the cluster takes seconds to see the job's end
        say(f"job '{job_id}' failed: the nodes are not fit")
        return 1
    job = jobs.status(job_id)
    say(f"job '{job_id}' {job.status.lower()}" + (f": {job.message}" if job.status == "FAILED" else ""))
    return 0 if job.status == "SUCCEEDED" else 1
