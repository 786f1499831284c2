"""Deploy tutors on a Ray cluster, show them and take them down. Needs Ray initialised; knows no students."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tutor_service.client import app_name
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.checks import check_cluster, check_fields, check_port, store_resource
from tutor_service.serving.stats import GatewayStats, together
from tutor_service.sharding import deployment_name, is_gateway

PREFIX = app_name("")
_QUIET = {"encoding": "JSON", "log_level": "ERROR", "enable_access_log": False}
"""Serve's own words, beside errors, are for its developers; a line per call would cost more than the call."""

_SHOWN_REASONS = 3
_POLL_S = 0.25
_TIMEOUT_S = 900.0
"""For all tutors of a command to be ready, models downloaded."""

_SAY_EVERY_S = 10.0
_ENDED = frozenset({"DELETING", "DEPLOY_FAILED"})
_GOING_S = 60.0


@dataclass(frozen=True, slots=True)
class TutorStatus:
    """Describe a deployed tutor.

    Attributes:
        name: The tutor's name.
        status: Serve's word for the application: RUNNING, DEPLOYING, UNHEALTHY, DEPLOY_FAILED or DELETING.
        message: What Serve says about it; empty when all is well.
        replicas: Replicas that hold the model and run.
        advice_per_s: Advice given per second since the gateway was ready; None while it cannot be asked.
        answered: Advice given, by source (``model``, ``store``).
        stored: Answers in its store; None where not known.
        store_path: Where the store is.
        notes: What was found out about it when it started, in lines.
        spent: What was asked of its endpoint so far, on one line; empty for a model of our own.
        reasons: Why requests got no advice, and how many each.
    """

    name: str
    status: str
    message: str
    replicas: int
    advice_per_s: float | None
    answered: dict[str, int]
    stored: int | None
    store_path: str | None
    notes: tuple[str, ...]
    spent: str
    reasons: dict[str, int]

    @property
    def will_answer(self) -> bool:
        """Whether it answers, or is on its way to."""
        return self.status not in _ENDED

    def health(self) -> list[str]:
        """Say in lines what was spent, and why some requests got no advice, the commonest reasons first."""
        spent = [f"asked of the endpoint so far: {self.spent}"] if self.spent else []
        reasons = sorted(self.reasons.items(), key=lambda item: -item[1])[:_SHOWN_REASONS]
        return spent + [f"{number:,} without advice: {reason}" for reason, number in reasons]


def deploy(
    tutors: Sequence[TutorConfig],
    *,
    http: HttpConfig | None = None,
    progress: Callable[[str], None] | None = None,
    launch: Callable[[], None] | None = None,
) -> list[str]:
    """Deploy one Serve application per tutor and return when all are ready to answer at full speed.

    References run in the student and are skipped. A tutor that is deployed already is updated in place.

    Args:
        tutors: Which tutors.
        http: Where to listen; None: no port is taken, and tutors are reached by handle only.
        progress: Takes lines about what is going on.
        launch: Has Serve start applications that hold these tutors; None: one per tutor, as its configuration says.

    Returns:
        Names of the tutors that are deployed.

    Raises:
        UserError: Ray is not initialised, a port is in use, the cluster has too few CPUs, GPUs or too little memory,
            or a model cannot be had. What this call deployed is taken down again.
    """
    served = [tutor for tutor in tutors if tutor.is_served]
    if not served:
        return []
    say = progress or (lambda text: None)
    access = _prepare(served, http, say)
    names = [tutor.name for tutor in served]
    try:
        if launch is not None:
            launch()
        else:
            _launch(served, access)
        wait_until_ready(names, say)
    except BaseException:
        delete(names)
        raise
    return names


def start(tutors: Sequence[TutorConfig], progress: Callable[[str], None]) -> None:
    """Have Serve start tutors that are reached by handle only; ``wait_until_ready`` returns when they answer.

    Raises:
        UserError: As ``deploy`` raises it before anything is deployed.
    """
    if tutors:
        _launch(tutors, _prepare(tutors, None, progress))


def _prepare(tutors: Sequence[TutorConfig], http: HttpConfig | None, say: Callable[[str], None]) -> Any:
    """Check what can be checked and start Serve; return who may ask by HTTP."""
    import ray

    if not ray.is_initialized():
        raise UserError("Ray is not initialised in this process: call ray.init() before tutors are deployed.")
    for tutor in tutors:
        check_fields(tutor)
    check_cluster(tutors)
    access = http.access() if http else None
    _start_serve(http)
    say(f"deploying {', '.join(tutor.name for tutor in tutors)}")
    return access


def _launch(tutors: Sequence[TutorConfig], access: Any) -> None:
    from ray import serve

    from tutor_service.serving.deployment import build

    serve.run_many(
        [
            serve.RunTarget(
                target=build(tutor, access, store_resource(tutor)),
                name=app_name(tutor.name),
                route_prefix=f"/{tutor.name}" if access else None,
                logging_config=_QUIET,
            )
            for tutor in tutors
        ],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def delete(names: Iterable[str]) -> None:
    """Take tutors down, requests in flight first; names that are not deployed are ignored.

    It returns when they are down, when somebody has deployed them anew, or when Serve has been at it for a minute.
    """
    import ray

    if not ray.is_initialized():
        return
    from ray import serve

    present = _applications()
    going = [app_name(name) for name in names if app_name(name) in present]
    for application in going:
        serve.delete(application, _blocking=False)
    ends, seen_going = time.monotonic() + _GOING_S, set[str]()
    while going and time.monotonic() < ends:
        found = serve.status().applications
        now_going = {name for name in going if name in found and found[name].status == "DELETING"}
        # Serve answers before it begins, and one that was deployed anew is not waited for.
        going = [name for name in going if name in found and (name in now_going or name not in seen_going)]
        seen_going |= now_going
        time.sleep(_POLL_S if going else 0)


def status() -> list[TutorStatus]:
    """Return all tutors that are deployed on this cluster, by name."""
    import ray

    if not ray.is_initialized():
        return []
    return [
        _status_of(application.removeprefix(PREFIX), overview)
        for application, overview in sorted(_applications().items())
        if application.startswith(PREFIX)
    ]


def _status_of(name: str, overview: Any) -> TutorStatus:
    replica = overview.deployments.get("TutorReplica")
    # Of a gateway that is being replaced the status says so.
    stats = gateway_stats(name, overview) if overview.status in {"RUNNING", "UNHEALTHY"} else None
    return TutorStatus(
        name=name,
        status=str(overview.status.value),
        message=overview.message,
        replicas=replica.replica_states.get("RUNNING", 0) if replica else 0,
        advice_per_s=stats.per_s if stats else None,
        answered=stats.answered if stats else {},
        stored=stats.stored if stats else None,
        store_path=stats.store_path if stats else None,
        notes=stats.notes if stats else (),
        spent=stats.spent if stats else "",
        reasons=stats.reasons if stats else {},
    )


def gateway_stats(name: str, overview: Any, timeout_s: float = 5.0) -> GatewayStats | None:
    """Return what all gateways of a tutor did; None where none can be asked.

    Args:
        name: The tutor's.
        overview: Serve's, of its application.
        timeout_s: Most seconds to wait, for all gateways together.
    """
    from ray import serve

    ends = time.monotonic() + timeout_s
    count = sum(map(is_gateway, overview.deployments))
    found: list[GatewayStats | None] = [None] * count
    asked: dict[int, Any] = {}
    for number in range(count):
        with contextlib.suppress(Exception):
            handle: Any = serve.get_deployment_handle(deployment_name(number), app_name(name))
            asked[number] = handle.stats.remote()
    for number, response in asked.items():
        with contextlib.suppress(Exception):  # one that is being replaced
            found[number] = response.result(timeout_s=max(0.1, ends - time.monotonic()))
    return together(found)


def _start_serve(http: HttpConfig | None) -> None:
    """Start Serve, with a proxy only where HTTP is asked for, or check that the running one fits."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = _running_serve()
    if running is None:
        try:
            _start_new_serve(http)
            return
        except ValueError:  # its name is taken: another command has just started it
            running = _running_serve()
            if running is None:
                raise
    if http is None:
        return
    options = running.http_config
    if not serve.status().proxies:
        raise UserError(
            "Serve runs on this Ray cluster without HTTP already. Take its tutors down (`serve shutdown`), then serve "
            "again."
        )
    if (options.host, options.port) != (http.host, http.port):
        raise UserError(
            f"Serve listens on {options.host}:{options.port} on this Ray cluster already; {http.host}:{http.port} was "
            "asked for. Use that address, or shut Serve down first."
        )


def _applications() -> Any:
    """Return what Serve says of all applications, by name; nothing where there is no Serve on this Ray."""
    from ray import serve

    return serve.status().applications if _running_serve() else {}


def _running_serve() -> Any:
    """Return the client of the Serve that runs on this Ray; None where there is none."""
    from ray.serve.context import _check_cached_client_alive, _get_global_client

    # Serve tells a client of an earlier Ray in this process by its job id, which every new local Ray counts from 1.
    running, _ = _check_cached_client_alive()
    return running or _get_global_client(raise_if_no_controller_running=False)


def _start_new_serve(http: HttpConfig | None) -> None:
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    if http is None:
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=_QUIET)
        return
    check_port(http)
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=http.host, port=http.port),
        logging_config=_QUIET,
    )


def wait_until_ready(
    names: Sequence[str], say: Callable[[str], None], absent: Callable[[str], None] | None = None
) -> None:
    """Return when tutors answer.

    Args:
        names: Tutors that are deployed or being deployed.
        say: Takes lines about what is going on.
        absent: Called now and then with the name of one that somebody is still to deploy; None: all are deployed.

    Raises:
        UserError: One failed, was taken down meanwhile, or is not ready in time.
    """
    from ray import serve

    started = said = time.monotonic()
    waiting = list(names)
    seen: set[str] = set()
    while waiting:
        applications = serve.status().applications
        for name in list(waiting):
            overview = applications.get(app_name(name))
            if overview is None:
                if absent is None or name in seen:
                    raise UserError(f"tutor '{name}' was taken down while it started.")
                absent(name)
                continue
            seen.add(name)
            if overview.status == "RUNNING":
                waiting.remove(name)
                say(f"tutor '{name}' is ready ({time.monotonic() - started:.0f} s)")
            elif overview.status == "DEPLOY_FAILED":
                raise UserError(failure(name, overview))
        now = time.monotonic()
        if now - started > _TIMEOUT_S:
            raise UserError(
                f"tutors {', '.join(waiting)} were not ready within {_TIMEOUT_S:.0f} s. Is the model still being "
                "downloaded, or are CPUs, GPUs or memory taken by something else on the cluster (`ray status`)?"
            )
        if waiting and now - said >= _SAY_EVERY_S:
            said = now
            say(f"waiting for {', '.join(waiting)} … {now - started:.0f} s")
        time.sleep(_POLL_S)


def failure(name: str, overview: Any) -> str:
    """Return what a failed deployment says, down to the line that a person needs."""
    messages = [overview.message, *(deployment.message for deployment in overview.deployments.values())]
    marker = "UserError: "
    for message in messages:
        for line in message.splitlines():
            if marker in line:
                return line.split(marker, 1)[1].strip()
    text = next((message for message in reversed(messages) if message.strip()), "no reason given")
    lines = [line for line in text.splitlines() if line.strip()]
    return f"tutor '{name}' could not be deployed: " + " | ".join(lines[-3:])
