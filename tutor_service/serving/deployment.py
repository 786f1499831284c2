"""Make a tutor a Serve application: its gateways, and replicas that hold the model (``replica``).

It binds ``gateway`` to Serve and owns nothing of what that does.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from dataclasses import replace
from typing import Any

from prometheus_client import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle

from tutor_service import paths
from tutor_service.config import TutorConfig
from tutor_service.engines import models
from tutor_service.engines.base import EngineFacts, Written
from tutor_service.gateway.briefing import Briefer, Briefing
from tutor_service.gateway.gateway import Explanation, Gateway
from tutor_service.gateway.http import AccessSettings, build_app
from tutor_service.gateway.metrics import GatewayMetrics, exposition
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.live_replicas import follow_replicas, num_running
from tutor_service.serving.peers import FirstGatewaysNotes, Peers, Place
from tutor_service.serving.prompting import check_briefing, load_tokenizer, make_builder
from tutor_service.serving.remembered import forget, recall, remember
from tutor_service.serving.replica import ANOTHER_MODEL, Evaluated, TutorReplica, Wanted, end_process, facts_of
from tutor_service.serving.scaling import autoscaling, gateway_settings
from tutor_service.serving.stats import GatewayStats
from tutor_service.serving.storing import GatewayStore, open_store
from tutor_service.serving.versions import loaded, version
from tutor_service.sharding import deployment_name
from tutor_service.store.opening import folder_of

logger = logging.getLogger("ray.serve")

_GATEWAY_CALLS = 4096
"""Calls at a gateway at a time. Calls for known states come in beside those that wait for the model, so it is more than
a large sweep's trials, which make one each. What waits is bounded in prompts (``max_pending``) and in bytes of HTTP."""

_GATEWAY_QUEUE = 1024
"""Calls beyond that wait in each caller's process; HTTP's proxy is one caller."""

_WATCHED: dict[str, Any] = {
    "max_constructor_retry_count": 1,
    "health_check_period_s": 2.0,
    "health_check_timeout_s": 20.0,
    "graceful_shutdown_timeout_s": 15.0,
    "graceful_shutdown_wait_loop_s": 0.2,
}
"""How Serve watches and ends gateways and replicas."""

_REPLICA_S = 5.0
"""Seconds after which a gateway that begins goes by what an earlier one wrote down of the engine."""

_ALONE_S = 10.0
"""A gateway that only replicas with another model answer for so long ends, and begins anew with what they hold."""

_A_TRACE = 0.001
"""Amount of the token resource; it is used only for placement."""


class TutorGateway:
    """Answer for a tutor, reached by handle and, where that is asked for, by HTTP.

    The first one is the ingress of its application. Of several each answers for its share of the states, and hands on
    what is another's: callers who do not divide their lists, HTTP's among them, ask the first.
    """

    _store: GatewayStore | None = None
    _refused_since: float | None = None
    _refused_last = 0.0

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: TutorConfig,
        replica: DeploymentHandle,
        access: AccessSettings | None,
        environment: dict[str, str],
        *,
        number: int = 0,
        others: tuple[DeploymentHandle, ...] = (),
    ) -> None:
        del others  # named so that they are part of the application; they are reached by name
        os.environ.update(environment)
        loading = asyncio.create_task(asyncio.to_thread(load_tokenizer, config))  # seconds; the replica takes longer
        self._number = version(loaded(config))
        self._folder = folder_of(config)
        asking = asyncio.create_task(facts_of(replica, self._number))
        facts = await self._known_by_now(asking)
        wanted = Wanted(self._number, facts.identity)
        self._name = config.name
        self._access = access
        self._started = time.monotonic()
        count = config.scaling.gateways
        self._metrics = GatewayMetrics(config.name, number if count > 1 else None)
        store, make_queue = open_store(config, self._metrics.store_failed)
        self._store = store
        self._metrics.show_unsent(store.num_unsent)
        builder = make_builder(config, facts.decoding, await loading)
        check_briefing(config, builder, facts.max_prompt_tokens)
        self._settings = gateway_settings(config, facts)
        self._notes = facts.notes
        self._spent, self._spent_at = "", 0.0
        confirming = self._confirming = asyncio.create_task(self._confirm(asking, facts))

        async def evaluate(prompts: list[Prompt]) -> list[Advice | AdviceError]:
            await asyncio.shield(confirming)
            response = replica.evaluate.remote(prompts, wanted)
            try:
                result: Evaluated = await response
            except asyncio.CancelledError:  # given up, or nobody waits any more
                response.cancel()
                raise
            if result.spent_at >= self._spent_at:
                self._spent, self._spent_at = result.spent or self._spent, result.spent_at
            self._note(is_refused=ANOTHER_MODEL in result.answers)
            return result.answers

        async def write(prompt: Prompt, max_tokens: int) -> Written | AdviceError:
            await asyncio.shield(confirming)
            written: Written | AdviceError = await replica.write.remote(prompt, max_tokens, wanted)
            return written

        self._num_gateways = count
        self._peers = Peers(Place(replica.app_name, number, count), self._own, self._metrics)
        self._briefing: Briefer = FirstGatewaysNotes(self._peers)
        if number == 0 or config.briefing != "self":
            self._briefing = Briefing(config.briefing, config.briefing_tokens, facts.identity, builder, write, store)
        self._gateway = Gateway(self._settings, builder, self._briefing, evaluate, store, self._metrics, make_queue)
        look = functools.partial(num_running, replica.app_name, replica.deployment_name)
        self._following = asyncio.create_task(follow_replicas(look, self._gateway.set_replicas))

    async def _known_by_now(self, asking: asyncio.Task[EngineFacts]) -> EngineFacts:
        """Return what the engine says, or said to an earlier gateway where no replica answers soon."""
        earlier = recall(self._folder, self._number)
        if earlier is not None:
            await asyncio.wait({asking}, timeout=_REPLICA_S)
            if not asking.done():
                logger.warning("no replica answers yet: what is stored is answered meanwhile")
                return earlier
        return await asking

    async def _confirm(self, asking: asyncio.Task[EngineFacts], known: EngineFacts) -> None:
        """Return when the engine is the one that this gateway began with; another one ends this process."""
        facts = await asking
        remember(self._folder, self._number, facts)
        if replace(facts, notes=()) != replace(known, notes=()):
            self._end("the replicas hold another model than an earlier gateway wrote down")
        self._notes = facts.notes

    async def advise(
        self, requests: list[AdviceRequest], within_s: float | None = None, is_handed_on: bool = False
    ) -> list[Advice | AdviceError]:
        """Return one answer per request, in order: see ``Gateway.advise``."""
        return await (self._own if is_handed_on else self._peers.advise)(requests, within_s)

    async def _own(self, requests: list[AdviceRequest], within_s: float | None) -> list[Advice | AdviceError]:
        return await self._gateway.advise(requests, within_s)

    async def explain(self, request: AdviceRequest) -> Explanation | AdviceError:
        """Answer one question and show how it was asked: see ``Gateway.explain``."""
        if (owner := self._peers.owner(request)) is not None:
            explained: Explanation | AdviceError = await self._peers.call(owner, "explain", request)
            return explained
        return await self._gateway.explain(request)

    async def brief(self, rules: str) -> str | AdviceError:
        """Return rules with the tutor's notes behind them: see ``Briefing.brief``."""
        return await self._briefing.brief(rules)

    async def num_gateways(self) -> int:
        """Return how many gateways divide the tutor's states, for callers who divide their lists."""
        return self._num_gateways

    async def families(self) -> list[Metric]:
        """Return this gateway's figures."""
        return self._metrics.families()

    async def _exposition(self) -> bytes:
        """Return the figures of all gateways in Prometheus' text format."""
        return exposition(await self._peers.families())

    def _note(self, is_refused: bool) -> None:
        """Remember for how long nothing but refusals has come; a quiet time is none."""
        if not is_refused:
            self._refused_since = None
            return
        self._refused_last = time.monotonic()
        if self._refused_since is None:
            self._refused_since = self._refused_last

    async def check_health(self) -> None:
        """End the gateway's process where its model is gone and replicas hold another; Serve starts a new one."""
        if self._refused_since is not None and self._refused_last - self._refused_since > _ALONE_S:
            forget(self._folder)
            self._end("all replicas hold another model than this gateway began with")
        if self._confirming.done() and (error := self._confirming.exception()):
            raise error

    def _end(self, reason: str) -> None:
        logger.error("%s: this gateway ends", reason)
        end_process()

    async def stats(self) -> GatewayStats:
        """Return what this gateway did since it started."""
        assert self._store is not None
        store = self._store.stats()
        return GatewayStats(
            answered=dict(self._metrics.answered),
            failed=dict(self._metrics.failed),
            pending=self._gateway.num_pending,
            per_s=self._metrics.answered.total() / max(time.monotonic() - self._started, 1e-9),
            stored=store.answers if store else None,
            store_path=self._store.place,
            identity=self._settings.identity,
            notes=(*self._notes, *([self._store.trouble] if self._store.trouble else [])),
            spent=self._spent,
            spent_at=self._spent_at,
            reasons=dict(self._metrics.reasons),
        )

    def __serve_build_asgi_app__(self) -> Any:
        """Return the HTTP side; called by Serve once the constructor is done."""
        return build_app(self._name, self.advise, self._exposition, self._access or AccessSettings())

    def __del__(self) -> None:
        if self._store is not None:
            self._store.close()


def build(
    config: TutorConfig, access: AccessSettings | None = None, store_resource: str | None = None
) -> serve.Application:
    """Return the Serve application of a tutor.

    Args:
        config: The tutor; not a reference.
        access: What HTTP lets in; None: no HTTP.
        store_resource: Ray resource of the node that keeps the advice store; None: any node will do.
    """
    config = models.pinned(config)
    scaling = config.scaling
    # Ray shows actors' arguments to all who see the cluster: no secret may be among them.
    environment = {name: os.environ[name] for name in (paths.HOME_VARIABLE,) if name in os.environ}
    options: dict[str, Any] = {"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus}
    if scaling.accelerator_type:
        options["accelerator_type"] = scaling.accelerator_type
    fixed = scaling.min_replicas == scaling.max_replicas
    replica: Any = serve.deployment(
        TutorReplica,
        name="TutorReplica",
        ray_actor_options=options,
        max_ongoing_requests=1024,  # the gateway bounds what it sends
        **_WATCHED,
        **({"num_replicas": scaling.max_replicas} if fixed else {"autoscaling_config": autoscaling(config)}),
    )
    replicas = replica.bind(loaded(config), environment)
    resources = {store_resource: _A_TRACE} if store_resource else {}
    others = tuple(
        _gateway(number, resources).bind(config, replicas, None, environment, number=number)
        for number in range(1, scaling.gateways)
    )
    first = _gateway(0, resources, with_http=access is not None)
    application: serve.Application = first.bind(config, replicas, access, environment, others=others)
    return application


def _gateway(number: int, resources: dict[str, float], with_http: bool = False) -> Any:
    """Return the deployment of one gateway."""
    gateway_class: Any = serve.ingress()(TutorGateway) if with_http else TutorGateway
    return serve.deployment(
        gateway_class,
        name=deployment_name(number),
        num_replicas=1,  # what joins equal requests has to be one place
        ray_actor_options={"num_cpus": 0, "resources": resources},
        max_ongoing_requests=_GATEWAY_CALLS,
        max_queued_requests=_GATEWAY_QUEUE,
        **_WATCHED,
    )
