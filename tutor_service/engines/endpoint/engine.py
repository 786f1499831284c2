"""Ask any OpenAI-compatible endpoint. Knows its protocol; must not know Serve, the store or tasks.

Where the endpoint gives log-probabilities a state costs one token, as on our own engine, except that only the likeliest
tokens are shown: a label that is not among them counts as probability 0. Where it gives none, words are read. Models
that think do so on their side of the wire: of them words are read, with tokens for the thought.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutor_service.config import TutorConfig
from tutor_service.engines.base import Engine, EngineFacts, Written
from tutor_service.engines.decode import Distribution
from tutor_service.engines.endpoint.capabilities import TOP_LOGPROBS, Capabilities
from tutor_service.engines.endpoint.probe import Refused, Unreadable, probe
from tutor_service.engines.endpoint.reading import read
from tutor_service.engines.endpoint.reply import NotRead, Received, Reply
from tutor_service.engines.endpoint.retries import ATTEMPTS, TRANSIENT, BudgetSpent, Exchange, Session, back_off
from tutor_service.engines.endpoint.transport import Transport, Unanswered
from tutor_service.errors import UserError
from tutor_service.prompts.prompt import Decoding, Prompt
from tutor_service.proxies import proxy_words
from tutor_service.schema import Advice, AdviceError
from tutor_service.secrets import read_secret

logger = logging.getLogger("ray.serve")

_LOADING = 503
_MAX_LOADING_S = 30.0
"""Longest wait, at the start, for a server that is there but says that it is not ready."""


class OpenAIEngine(Engine):
    """Ask an endpoint. The tutor's ``engine`` options are added to the body of every request."""

    def __init__(self, config: TutorConfig) -> None:
        self._config = config
        self._session: Session | None = None
        self._takes = Capabilities()
        self._loaded_by = 0.0

    async def start(self) -> EngineFacts:
        """See ``Engine``. Asks a few times, to see that the endpoint answers and what it takes."""
        config = self._config
        if not config.base_url or not config.model:
            raise UserError(f"tutor '{config.name}': backend openai needs base_url and model.")
        transport = Transport(config.base_url, self._key(), config.timeout_s, config.concurrency)
        self._session = Session(config, transport)
        self._loaded_by = time.monotonic() + min(config.timeout_s, _MAX_LOADING_S)
        try:
            found = await probe(config, self._send)
        except Refused as refusal:
            raise UserError(self._refused(refusal.received, transport.url)) from None
        except Unreadable as failure:
            address = "that base_url is that of an OpenAI-compatible API (it often ends in /v1), and "
            raise UserError(
                f"tutor '{config.name}': {config.base_url} answers, but nothing that can be read: {failure}. Check "
                f"{'' if failure.speaks else address}model '{config.model}'."
            ) from None
        except BudgetSpent as spent:
            raise UserError(
                f"tutor '{config.name}': {spent.limit} does not allow the few requests that find out what the endpoint "
                "takes. Raise it."
            ) from None
        except Unanswered as failure:
            if failure.paused:
                raise UserError(
                    f"tutor '{config.name}': {config.base_url} may not be asked now: {failure.reason}. Wait, or look "
                    "at the limits of the account; pauses up to timeout_s are kept."
                ) from None
            raise UserError(
                f"tutor '{config.name}': base_url = '{config.base_url}' cannot be reached ({failure.reason}). Check "
                "base_url, and that the server runs; timeout_s is the time for one answer."
            ) from None
        self._takes = found.capabilities
        for dropped in found.dropped:
            logger.warning("Tutor '%s' does without %s", config.name, dropped)
        decoding: Decoding = "scored" if self._takes.top_logprobs else "text"
        notes = (f"endpoint: {self._takes.words()}", *(f"not taken: {dropped}" for dropped in found.dropped))
        return EngineFacts(self._identity(decoding), decoding, max_prompt_tokens=None, notes=notes)

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``; failures are per prompt."""
        return list(await asyncio.gather(*(self._one(prompt) for prompt in prompts)))

    async def write(self, prompt: Prompt, max_tokens: int) -> Written | AdviceError:
        """See ``Engine``."""
        seed = None if self._takes.temperature else 0
        fields = self._takes.body(self._thought_tokens + max_tokens, temperature=0.0, seed=seed, scored=False)
        exchange = await self._exchange(prompt, fields)
        if isinstance(exchange, AdviceError):
            return exchange
        if isinstance(exchange.reply, NotRead):
            return AdviceError(f"endpoint: {exchange.reply.reason}")
        return Written(exchange.reply.text, whole=not exchange.reply.cut)

    async def check_health(self) -> None:
        """Return at once: an endpoint that is down is not mended by a new replica."""

    def spent(self) -> str:
        """See ``Engine``."""
        return self._session.budget.words() if self._session is not None else ""

    def shutdown(self) -> None:
        """See ``Engine``; there are no processes."""

    @property
    def _thought_tokens(self) -> int:
        """Return the tokens that an answer in words needs for its thought."""
        return self._config.thinking_tokens if self._takes.thinks else 0

    async def _one(self, prompt: Prompt) -> Advice | AdviceError:
        try:
            return await (self._scored(prompt) if self._takes.top_logprobs else self._text(prompt))
        except Exception as error:  # whatever a reply can set off costs its own prompt
            logger.exception("A reply of tutor '%s' could not be handled", self._config.name)
            return AdviceError(f"endpoint: its reply could not be handled ({type(error).__name__})")

    async def _scored(self, prompt: Prompt) -> Advice | AdviceError:
        fields = self._takes.body(1, temperature=0.0, seed=None if self._takes.temperature else 0, scored=True)
        exchange = await self._exchange(prompt, fields)
        if isinstance(exchange, AdviceError):
            return exchange
        outcome, tokens = read(exchange.reply, prompt.labels, prompt.words, scored=True), _tokens(exchange)
        if isinstance(outcome, NotRead):
            return AdviceError(f"endpoint: {outcome.reason}", invalid=1, tokens=tokens)
        return Advice(outcome.probabilities, outcome.mass, tokens=tokens)

    async def _text(self, prompt: Prompt) -> Advice | AdviceError:
        """Ask until an answer names an action, at most ``text_attempts`` times."""
        most = self._thought_tokens + self._config.answer_tokens
        unread = ""
        tokens = 0
        for attempt in range(self._config.text_attempts):
            seed = attempt if attempt or not self._takes.temperature else None
            fields = self._takes.body(most, temperature=1.0 if attempt else 0.0, seed=seed, scored=False)
            exchange = await self._exchange(prompt, fields)
            if isinstance(exchange, AdviceError):
                return exchange
            tokens += _tokens(exchange)
            outcome = read(exchange.reply, prompt.labels, prompt.words, scored=False)
            if isinstance(outcome, Distribution):
                return Advice(outcome.probabilities, outcome.mass, invalid=attempt, tokens=tokens)
            unread = outcome.reason
        attempts = self._config.text_attempts
        return AdviceError(f"endpoint: {unread} (asked {attempts} times)", invalid=attempts, tokens=tokens)

    async def _exchange(self, prompt: Prompt, fields: dict[str, Any]) -> Exchange | AdviceError:
        """Return a reply of status 200, or why there is none."""
        assert self._session is not None, "start() comes first"
        try:
            exchange = await self._session.ask(prompt.text, fields)
        except BudgetSpent as spent:
            fatal = self._config.budget.when_spent == "fail"
            return AdviceError(f"tutor '{self._config.name}': {spent.limit} is used up", fatal=fatal)
        except Unanswered as failure:
            return AdviceError(f"endpoint: {failure.reason}", retry=True)
        received = exchange.received
        if received.status == 200:
            return exchange
        retry = received.status in TRANSIENT or received.status >= 500
        return AdviceError(f"endpoint: {received.words} (HTTP {received.status})", retry=retry)

    async def _send(self, question: str, fields: dict[str, Any]) -> Received:
        """Ask at the start; a server that loads its model is given the time for that."""
        assert self._session is not None
        while True:
            received = (await self._session.ask(question, fields)).received
            if received.status != _LOADING or time.monotonic() > self._loaded_by:
                return received
            logger.info("Tutor '%s' waits for its endpoint: %s", self._config.name, received.words)
            await back_off(ATTEMPTS)

    def _refused(self, received: Received, address: str) -> str:
        """Say what a refusal to be asked at all means: the provider's words, and where to look."""
        config = self._config
        source = config.api_key_env or config.api_key_file
        if received.status in (401, 403):
            remedy = f"Check the key in '{source}' and what it may do." if source else "Name its key in api_key_env."
        elif received.status == 429:
            remedy = "Wait, or lower concurrency, requests_per_minute or tokens_per_minute."
        elif received.status == 402:
            remedy = "The account with the provider has to be paid."
        elif received.status == 407:
            remedy = "The proxy wants its user and password: give its address as http://USER:PASSWORD@HOST:PORT."
        elif received.status == _LOADING:
            remedy = "The server is not ready: try again when its model is loaded, or look at its own log."
        elif received.status >= 500:
            remedy = "The server is at fault: look at its own log, or try again."
        elif received.status in (404, 405) or received.status < 400:
            remedy = f"Check model, and base_url, which often ends in /v1: {address} was called."
        else:
            given = ", and template_arguments" if config.template_arguments else ""
            remedy = f"Check base_url, model and engine{given}."
        by_hand = config.capabilities.model_dump(exclude_none=True)
        if by_hand:
            remedy += f" What capabilities says ({', '.join(by_hand)}) was taken as it is."
        return (
            f"tutor '{config.name}': {config.base_url} refuses model '{config.model}': {received.words} "
            f"(HTTP {received.status}{proxy_words(config.base_url or '')}). {remedy}"
        )

    def _key(self) -> str | None:
        """Return the endpoint's key, as this node has it."""
        file = self._config.api_key_file
        try:
            key = read_secret("API key", self._config.api_key_env, Path(file) if file else None)
        except UserError as error:
            raise UserError(f"tutor '{self._config.name}': {error}") from None
        if key and not (key.isascii() and key.isprintable()):
            raise UserError(
                f"tutor '{self._config.name}': the API key in '{self._config.api_key_env or file}' is several lines or "
                "holds characters that no key has. Put the key there and nothing else."
            )
        return key

    def _identity(self, decoding: str) -> str:
        """Return everything beside the prompt that can change an answer."""
        config, takes = self._config, self._takes
        fields: dict[str, Any] = {
            "base_url": config.base_url,
            "model": config.model,
            "revision": config.revision,
            "decoding": decoding,
            "engine": config.engine,
        }
        if decoding == "text":
            fields |= {"attempts": config.text_attempts, "tokens": self._thought_tokens + config.answer_tokens}
        elif takes.top_logprobs != TOP_LOGPROBS and "top_logprobs" not in config.engine:
            fields["top_logprobs"] = takes.top_logprobs
        if not takes.temperature:
            fields["temperature"] = "default"
        return json.dumps(fields, sort_keys=True, default=str)


def _tokens(exchange: Exchange) -> int:
    reply = exchange.reply
    return reply.usage.prompt_tokens + reply.usage.completion_tokens if isinstance(reply, Reply) else 0
