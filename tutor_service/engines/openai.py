"""Asks any OpenAI-compatible endpoint. Knows its protocol; must not know Serve, the store or tasks.

Where the endpoint gives log-probabilities a state costs one token, as on our own engine, except that only the likeliest
tokens are shown: a label that is not among them counts as probability 0. Where it gives none, text decoding takes over.
Reasoning models think on their side of the wire, so for them text decoding with room for the thought is used.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutor_service.config import TutorConfig
from tutor_service.engines.base import EngineFacts
from tutor_service.engines.decode import scored
from tutor_service.engines.text import answer_in_text
from tutor_service.errors import UserError
from tutor_service.prompts.prompt import Decoding, Prompt
from tutor_service.schema import Advice, AdviceError
from tutor_service.secrets import read_secret

TOP_LOGPROBS = 20
"""Most that OpenAI's API gives; ``engine: {top_logprobs: 5}`` for endpoints that give fewer."""

CONCURRENCY = 32
_TIMEOUT_S = 120.0
_PROBE = Prompt((), (), ("A", "B"), "Actions: A = go; B = stop.\nAnswer with exactly one of: A, B.")


class OpenAIEngine:
    """See ``engines.base.Engine``. The tutor's ``engine`` options are added to the body of every request."""

    def __init__(self, config: TutorConfig) -> None:
        self._config = config
        self._limit = asyncio.Semaphore(CONCURRENCY)
        self._decoding: Decoding = "scored" if config.decoding == "scored" else "text"
        self._length_field = "max_tokens"
        self._client: Any = None

    async def start(self) -> EngineFacts:
        """See ``Engine``. Asks once, to see that the endpoint answers and whether it gives log-probabilities."""
        import openai

        self._client = openai.AsyncOpenAI(
            base_url=self._config.base_url,
            api_key=self._key() or "none",
            timeout=_TIMEOUT_S,
            max_retries=2,
        )
        try:
            await self._probe()
        except openai.AuthenticationError as error:
            source = self._config.api_key_env or self._config.api_key_file
            refused = f"refused the key in '{source}'" if source else "asks for a key: name it in api_key_env"
            raise UserError(
                f"tutor '{self._config.name}': {self._config.base_url} {refused} ({error.status_code})."
            ) from None
        except openai.APIStatusError as error:
            raise UserError(
                f"tutor '{self._config.name}': {self._config.base_url} answered {error.status_code} for model "
                f"'{self._config.model}': {_brief(error)}. Check base_url and model."
            ) from None
        except openai.APIConnectionError as error:
            raise UserError(
                f"tutor '{self._config.name}': base_url = '{self._config.base_url}' cannot be reached "
                f"({_brief(error.__cause__ or error)})."
            ) from None
        fields: dict[str, Any] = {
            "base_url": self._config.base_url,
            "model": self._config.model,
            "revision": self._config.revision,
            "decoding": self._decoding,
            "engine": self._config.engine,
        }
        if self._decoding == "text":
            fields |= {"attempts": self._config.text_attempts, "tokens": self._answer_tokens()}
        identity = json.dumps(fields, sort_keys=True, default=str)
        return EngineFacts(identity, self._decoding, max_prompt_tokens=None)

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``; failures are per prompt."""
        return list(await asyncio.gather(*(self._one(prompt) for prompt in prompts)))

    async def check_health(self) -> None:
        """Always well: an endpoint that is down is not mended by a new replica."""

    def shutdown(self) -> None:
        """See ``Engine``; there are no processes."""

    async def _one(self, prompt: Prompt) -> Advice | AdviceError:
        import openai

        try:
            async with self._limit:
                return await (self._scored(prompt) if self._decoding == "scored" else self._text(prompt))
        except openai.BadRequestError as error:
            return AdviceError(f"endpoint: refused the request: {_brief(error)}")
        except openai.OpenAIError as error:
            return AdviceError(f"endpoint: {type(error).__name__}: {_brief(error)}", retry=True)

    async def _scored(self, prompt: Prompt) -> Advice | AdviceError:
        reply = await self._complete(prompt.text, 1, temperature=0, logprobs=True, top_logprobs=TOP_LOGPROBS)
        shown = _first_token(reply)
        if shown is None:
            raise _NoLogprobs
        return scored(label_logprobs(shown, prompt.labels), _tokens(reply))

    async def _text(self, prompt: Prompt) -> Advice | AdviceError:
        async def generate(attempt: int) -> tuple[str, int]:
            reply = await self._complete(
                prompt.text, self._answer_tokens(), temperature=1.0 if attempt else 0.0, seed=attempt
            )
            return reply.choices[0].message.content or "", _tokens(reply)

        return await answer_in_text(generate, prompt.labels, self._config.text_attempts, prompt_tokens=0)

    def _key(self) -> str | None:
        """The endpoint's key, as this node has it."""
        file = self._config.api_key_file
        try:
            return read_secret("API key", self._config.api_key_env, Path(file) if file else None)
        except UserError as error:
            raise UserError(f"tutor '{self._config.name}': {error}") from None

    async def _probe(self) -> None:
        """Finds out what the endpoint can do."""
        import openai

        if self._decoding == "scored":
            try:
                await self._scored(_PROBE)
            except _NoLogprobs:
                self._decoding = "text"
            except openai.BadRequestError as error:
                if "logprob" not in str(error):
                    raise
                self._decoding = "text"
        if self._decoding == "text":
            await self._complete(_PROBE.text, 1)

    async def _complete(self, text: str, max_tokens: int, **fields: Any) -> Any:
        import openai

        request = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": text}],
            "extra_body": dict(self._config.engine),
            **fields,
        }
        try:
            return await self._client.chat.completions.create(**request, **{self._length_field: max_tokens})
        except openai.BadRequestError as error:
            if self._length_field == "max_completion_tokens" or "max_completion_tokens" not in str(error):
                raise
            self._length_field = "max_completion_tokens"
            return await self._client.chat.completions.create(**request, max_completion_tokens=max_tokens)

    def _answer_tokens(self) -> int:
        thinking = self._config.thinking_tokens if self._config.decoding == "reasoned" else 0
        return thinking + self._config.answer_tokens


class _NoLogprobs(Exception):
    """The endpoint answers, but without log-probabilities."""


def label_logprobs(shown: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    """Log-probability of each label, summed over its spellings with and without white space; ``-inf`` if not shown."""
    masses = dict.fromkeys(labels, 0.0)
    for token, logprob in shown.items():
        if token.strip() in masses:
            masses[token.strip()] += math.exp(logprob)
    return [math.log(mass) if mass > 0 else -math.inf for mass in masses.values()]


def _first_token(reply: Any) -> dict[str, float] | None:
    logprobs = getattr(reply.choices[0], "logprobs", None)
    content = getattr(logprobs, "content", None)
    if not content or not content[0].top_logprobs:
        return None
    return {item.token: item.logprob for item in content[0].top_logprobs}


def _tokens(reply: Any) -> int:
    return int(reply.usage.total_tokens) if reply.usage else 0


def _brief(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
