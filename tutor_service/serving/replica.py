"""Hold one copy of a tutor's model in a process of Serve's. It binds ``engines`` to Serve and owns no answer."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import NamedTuple, NoReturn

from ray.serve.handle import DeploymentHandle

from tutor_service.config import TutorConfig
from tutor_service.engines.base import Engine, EngineFacts, Written
from tutor_service.engines.factory import make_engine
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError
from tutor_service.serving.autoscaling_policy import PROMPTS
from tutor_service.serving.versions import version

logger = logging.getLogger("ray.serve")

ANOTHER_MODEL = AdviceError("tutor: a replica that holds another model is being ended", retry=True)
_LOOK_AGAIN_S = 0.2


class Wanted(NamedTuple):
    """Say which replicas may answer a gateway: it keeps what they say under its own key.

    Attributes:
        version: Of the configuration. A tutor that is changed has gateways and replicas of both for a while.
        identity: See ``EngineFacts``.
    """

    version: str
    identity: str


class Evaluated(NamedTuple):
    """Hold what a replica answers to one call.

    Attributes:
        answers: One per prompt.
        spent: See ``Engine.spent``.
        spent_at: When that was so, in seconds since the epoch.
    """

    answers: list[Advice | AdviceError]
    spent: str
    spent_at: float = 0.0


class TutorReplica:
    """Hold one copy of a tutor's model."""

    _engine: Engine | None = None
    _num_prompts = 0
    _is_another = False

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: TutorConfig, environment: dict[str, str]
    ) -> None:
        os.environ.update(environment)
        self._version = version(config)
        engine = self._engine = make_engine(config)
        self._facts = await engine.start()

    async def evaluate(self, prompts: list[Prompt], wanted: Wanted) -> Evaluated:
        """See ``Engine.evaluate``; refuses where another replica is wanted."""
        if refusal := self._refusal(wanted):
            return Evaluated([refusal] * len(prompts), "")
        assert self._engine is not None
        self._num_prompts += len(prompts)
        try:
            return Evaluated(await self._engine.evaluate(prompts), self._engine.spent(), time.time())
        finally:
            self._num_prompts -= len(prompts)

    async def write(self, prompt: Prompt, max_tokens: int, wanted: Wanted) -> Written | AdviceError:
        """See ``Engine.write``; refuses where another replica is wanted."""
        if refusal := self._refusal(wanted):
            return refusal
        assert self._engine is not None
        return await self._engine.write(prompt, max_tokens)

    async def facts(self, version: str) -> EngineFacts | None:
        """Return what the gateway has to know; None where this replica is of another configuration."""
        return self._facts if version == self._version else None

    def _refusal(self, wanted: Wanted) -> AdviceError | None:
        if wanted.version != self._version:
            return AdviceError("tutor: it is being changed", retry=True)
        if wanted.identity == self._facts.identity:
            return None
        if not self._is_another:
            logger.error("this replica holds another model than the gateway writes down:\n%s\n%s", self._facts, wanted)
        self._is_another = True
        return ANOTHER_MODEL

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve, which calls this, how much is asked of this replica."""
        return {PROMPTS: self._num_prompts}

    async def check_health(self) -> None:
        """End the replica's process when its engine is dead or holds another model than its gateway began with.

        Serve, which calls this, replaces it at the next look.

        By raising it would be replaced only after Serve's third look, and callers would meet the dead engine meanwhile.
        """
        try:
            if self._engine is not None:
                await self._engine.check_health()
        except Exception:
            logger.exception("the engine is gone: this replica ends")
        else:
            if not self._is_another:
                return
        end_process()

    def __del__(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()


async def facts_of(replica: DeploymentHandle, version: str) -> EngineFacts:
    """Return what a replica of this configuration says of its engine, once there is one."""
    while (facts := await replica.facts.remote(version)) is None:
        await asyncio.sleep(_LOOK_AGAIN_S)
    found: EngineFacts = facts
    return found


def end_process() -> NoReturn:
    """End this process of Serve's at once; Serve starts a new one."""
    logging.shutdown()
    os._exit(1)
