"""Find out what an endpoint takes by asking it, and by nothing else: no wording and no vendor's name is known here.

A request with everything is tried first. Where it is refused, one with nothing optional shows whether the refusal is a
real one; if not, the options are added one by one, and what is refused is left out for good. So the set that is used in
the end has been answered as a whole. Knows no transport: requests are sent by a function that is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tutor_service.config import TutorConfig
from tutor_service.engines.decode import Distribution
from tutor_service.engines.endpoint.capabilities import (
    FEWER_TOP_LOGPROBS,
    LENGTH_FIELDS,
    Capabilities,
    starting_point,
)
from tutor_service.engines.endpoint.reading import opens_with_marks, read, read_logprobs
from tutor_service.engines.endpoint.reply import NotRead, Received, Reply, parse_reply

LABELS = ("A", "B")
SCORED_QUESTION = "Actions: A = go; B = stop.\nAnswer with exactly one of: A, B."
TEXT_QUESTION = "Actions: A = go; B = stop.\nChoose one of: A, B. Give it in tags: <action>your choice</action>"

_READS = 3
"""Times that an answered request is made until one reply can be read: a single bad one proves nothing."""

_MOST_OF_IT = 0.5
"""A label with more probability than this stands at that place, whatever the token's text looks like."""

_LEAST_TOKENS = (16, 128)
_AMPLE_TOKENS = 1024
_SLOW_DOWN = frozenset({408, 429})
"""Says something about the moment and nothing about the options."""

Send = Callable[[str, dict[str, Any]], Awaitable[Received]]


class Refused(Exception):
    """The endpoint refuses also what nothing optional was asked in.

    Args:
        received: Its reply.
    """

    def __init__(self, received: Received) -> None:
        super().__init__(received.words)
        self.received = received


class Unreadable(Exception):
    """The endpoint answers, but nothing that can be read.

    Args:
        reason: What is wrong with its replies.
        speaks: Whether they have the form of chat completions.
    """

    def __init__(self, reason: str, *, speaks: bool) -> None:
        super().__init__(reason)
        self.speaks = speaks


class Found(NamedTuple):
    """Hold what a probe found.

    Attributes:
        capabilities: What the endpoint takes.
        dropped: What it refused, each with its own words.
    """

    capabilities: Capabilities
    dropped: list[str]


async def probe(config: TutorConfig, send: Send) -> Found:
    """Find what the endpoint of a tutor takes; what the tutor's file says is taken as it is.

    Args:
        config: The tutor.
        send: Question and optional fields to the reply; transient failures have been retried.

    Raises:
        Refused: It refuses to be asked at all.
        Unreadable: It answers nothing that can be read.
    """
    search = _Search(config, send)
    if search.found.top_logprobs:
        await search.find_logprobs()
    if not search.found.top_logprobs:
        await search.find_text()
    return Found(search.found, search.dropped)


class _Search:
    """Hold one probe under way.

    Attributes:
        found: What is known to be taken together, once ``find_…`` returned.
        dropped: What was refused on the way there.
    """

    def __init__(self, config: TutorConfig, send: Send) -> None:
        self._by_hand = config.capabilities
        self._send = send
        self._answer_tokens = config.answer_tokens
        self._thinking_tokens = config.thinking_tokens
        self._thinks = config.decoding == "reasoned" or config.capabilities.thinking is True
        self.found = starting_point(config)
        self.dropped: list[str] = []
        self._answer = Received(0, b"")
        self._refusal = Received(0, b"")

    async def find_logprobs(self) -> None:
        """Find options with log-probabilities; gives these up where they are refused or of no use."""
        await self._settle((1, *_LEAST_TOKENS, self._room(thinks=True)))
        reason = "none are given"
        for _ in range(_READS):
            if not self.found.top_logprobs:
                return
            reply = parse_reply(self._answer.body)
            candidate = self.found
            if isinstance(reply, NotRead):
                reason = reply.reason
            elif reply.positions:
                outcome = read_logprobs(reply, LABELS)
                later = opens_with_marks(reply, LABELS)
                if isinstance(outcome, Distribution) and (outcome.mass > _MOST_OF_IT or not later):
                    self._note_lone_token(reply)
                    return
                if later:
                    candidate = self._longer(candidate)
                reason = outcome.reason if isinstance(outcome, NotRead) else "answers begin with no word"
            if not await self._accepts(candidate, 1):
                reason = _words(self._refusal)
        self.found = replace(self.found, top_logprobs=0)
        self.dropped.append(f"log-probabilities: {reason}")

    def _longer(self, candidate: Capabilities) -> Capabilities:
        """Let answers run past what they begin with, unless the tutor's file says how long they are."""
        if self._by_hand.least_tokens is not None:
            return candidate
        return replace(candidate, least_tokens=max(candidate.least_tokens, _LEAST_TOKENS[0]))

    def _note_lone_token(self, reply: Reply) -> None:
        if self.found.top_logprobs > 1 and all(len(position.top) == 1 for position in reply.positions):
            self.dropped.append("the tokens beside the likeliest: only its log-probability is given")

    async def find_text(self) -> None:
        """Find options for an answer in words, with tokens for a thought where the model thinks."""
        await self._settle((self._room(self._thinks or self._asks_for_many()), self._room(thinks=True)))
        self._thinks = self._thinks or self._asks_for_many()
        for _ in range(_READS):
            reply = parse_reply(self._answer.body)
            outcome = read(reply, LABELS, scored=False)
            if isinstance(reply, Reply):
                self._thinks = self._thinks or reply.thinks or (reply.cut and isinstance(outcome, NotRead))
                if isinstance(outcome, Distribution) or (reply.text.strip() and not reply.cut):
                    self.found = replace(self.found, thinks=self._thinks and self._by_hand.thinking is not False)
                    return
            await self._accepts(self.found, self._room(self._thinks))
        raise Unreadable(outcome.reason if isinstance(outcome, NotRead) else "", speaks=isinstance(reply, Reply))

    def _asks_for_many(self) -> bool:
        """Tell whether more tokens are asked for than an answer takes: only models that think do so."""
        return self.found.least_tokens > max(_LEAST_TOKENS[0], self._answer_tokens)

    def _room(self, thinks: bool) -> int:
        return self._answer_tokens + (self._thinking_tokens if thinks and self._by_hand.thinking is not False else 0)

    async def _accepts(self, candidate: Capabilities, tokens: int) -> bool:
        """Ask with these options. They are ``found`` from then on where they are answered."""
        scored = candidate.top_logprobs > 0
        seed = None if scored and candidate.temperature else 1
        fields = candidate.body(tokens, temperature=0.0, seed=seed, scored=scored)
        received = await self._send(SCORED_QUESTION if scored else TEXT_QUESTION, fields)
        if received.status == 200:
            self.found, self._answer = candidate, received
            return True
        if received.status in _SLOW_DOWN:
            raise Refused(received)
        self._refusal = received
        return False

    async def _settle(self, lengths: Sequence[int]) -> None:
        """Find options that are answered together; ``lengths``: numbers of tokens to try, the wanted one first."""
        wanted = self.found
        if await self._accepts(wanted, lengths[0]):
            return
        await self._bare(wanted, self._refusal)
        if self._by_hand.length_field is None:
            await self._find_length(lengths)
        tokens = lengths[0]
        if wanted.temperature:
            await self._add("temperature", replace(self.found, temperature=True), tokens)
        if wanted.seed:
            await self._add("seed", replace(self.found, seed=True), tokens)
        if wanted.top_logprobs:
            await self._find_top_logprobs(wanted.top_logprobs, tokens)

    async def _bare(self, wanted: Capabilities, refusal: Received) -> None:
        """Ask for nothing but what the tutor's file says; some endpoints insist on a number of tokens."""
        hand = self._by_hand
        fixed = Capabilities(
            top_logprobs=hand.top_logprobs or 0,
            temperature=bool(hand.temperature),
            seed=bool(hand.seed),
            length_field=wanted.length_field if hand.length_field else "",
            least_tokens=wanted.least_tokens,
        )
        if await self._accepts(fixed, _AMPLE_TOKENS):
            return
        refusal = self._refusal if not hand.model_fields_set else refusal
        if not hand.length_field:
            for name in LENGTH_FIELDS:
                if await self._accepts(replace(fixed, length_field=name), _AMPLE_TOKENS):
                    return
        raise Refused(refusal)

    async def _add(self, name: str, candidate: Capabilities, tokens: int) -> None:
        """Try one more option, unless it is there."""
        if candidate != self.found and not await self._accepts(candidate, tokens):
            self.dropped.append(f"{name}: {_words(self._refusal)}")

    async def _find_length(self, lengths: Sequence[int]) -> None:
        """Find the field, and the least of these numbers of tokens, that bounds an answer."""
        before = self.found
        for tokens in lengths:
            for name in LENGTH_FIELDS:
                least = tokens if tokens > lengths[0] else before.least_tokens
                if await self._accepts(replace(before, length_field=name, least_tokens=least), tokens):
                    return
        self.dropped.append(f"max_tokens: {_words(self._refusal)}")

    async def _find_top_logprobs(self, most: int, tokens: int) -> None:
        """Find the largest number that is taken of those that endpoints limit it to, once 1 is."""
        before = self.found
        if before.top_logprobs or await self._accepts(replace(before, top_logprobs=most), tokens):
            return
        refusal = self._refusal
        if not await self._accepts(replace(before, top_logprobs=1), tokens):
            self.dropped.append(f"log-probabilities: {_words(refusal)}")
            return
        for number in FEWER_TOP_LOGPROBS:
            if number < most and await self._accepts(replace(before, top_logprobs=number), tokens):
                break
        self.dropped.append(f"more than {self.found.top_logprobs} top tokens: {_words(refusal)}")


def _words(received: Received) -> str:
    return f"{received.words} (HTTP {received.status})"
