"""Stand-ins for the service's heavy parts: tokenizer, model and store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import ClassVar

from tutor_service.engines.base import Written
from tutor_service.gateway.briefing import Briefing, Write
from tutor_service.gateway.gateway import Gateway, GatewaySettings, MakeQueue
from tutor_service.gateway.metrics import GatewayMetrics
from tutor_service.gateway.queue import JoiningQueue, QueueLimits
from tutor_service.prompts.chat import ChatPrompts
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.store import Entry, StoreError
from tutor_service.store.shared import SharedStore

SPECIALS = {"<s>": 1, "<end>": 2, "<user>": 3}
ADDED = {"<tutor>": 4}
WORDS = {"hit": 10, "stick": 11}


class FakeTokenizer:
    """One token per character, but for a few words and control tokens, one of which it does not call special."""

    chat_template: str | None = "fake"
    added_tokens_decoder: ClassVar[dict[int, SimpleNamespace]] = {
        **{number: SimpleNamespace(content=token, special=True) for token, number in SPECIALS.items()},
        **{number: SimpleNamespace(content=token, special=False) for token, number in ADDED.items()},
    }

    def __init__(self, template: Callable[[str], str] | None = None) -> None:
        self.template = template or (lambda content: f"<s><user>{content}<end><tutor>")
        self.rendered_with: dict[str, object] = {}

    def encode(self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        known = {**WORDS, **ADDED} if split_special_tokens else {**WORDS, **ADDED, **SPECIALS}
        ids: list[int] = []
        while text:
            match = next((token for token in known if text.startswith(token)), None)
            ids.append(known[match] if match else 100 + ord(text[0]))
            text = text[len(match) if match else 1 :]
        return ids

    def __call__(self, texts: Sequence[str], **options: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.encode(text, **options) for text in texts]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        names = {number: token for token, number in {**WORDS, **ADDED, **SPECIALS}.items()}
        return "".join(names[number] if number in names else chr(number - 100) for number in ids)

    def apply_chat_template(self, messages: list[dict[str, str]], **options: object) -> str:
        self.rendered_with = options
        return self.template(messages[0]["content"])


class FakeModel:
    """Counts what it evaluates; answers when it is let."""

    def __init__(self, probabilities: Callable[[Prompt], tuple[float, ...]] | None = None) -> None:
        self.evaluated: list[Prompt] = []
        self.batches: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failing: Exception | None = None
        self._probabilities = probabilities or (lambda prompt: (0.75, 0.25, *(0.0 for _ in prompt.labels[2:])))

    async def __call__(self, prompts: list[Prompt]) -> list[Advice | AdviceError]:
        self.batches.append(len(prompts))
        await self.open.wait()
        if self.failing:
            raise self.failing
        self.evaluated.extend(prompts)
        return [Advice(self._probabilities(prompt), 0.5, tokens=len(prompt.token_ids)) for prompt in prompts]


class FakeStore:
    """A store in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Advice] = {}
        self.replaced = 0
        self.notes: dict[bytes, str] = {}
        self.commits: list[int] = []

    def get_notes(self, key: bytes) -> str | None:
        return self.notes.get(key)

    def keep_notes(self, key: bytes, notes: str) -> str:
        return self.notes.setdefault(key, notes)

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        return [self.kept.get(key) for key in keys]

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        self.commits.append(len(entries))
        return [self.kept.setdefault(entry.key, entry.advice) for entry in entries]


class FakeDatabase:
    """What gateways share, in dictionaries: away when it is told to be."""

    place = "postgresql://fake"

    def __init__(self) -> None:
        self.kept: dict[bytes, Entry] = {}
        self.notes: dict[bytes, str] = {}
        self.leases: dict[bytes, tuple[bytes, float]] = {}
        self.away = False
        self.calls: list[str] = []
        self._lock = threading.Lock()

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        with self._lock:
            self.calls.append(name)
            if self.away:
                raise StoreError("the fake is away")
            yield

    def find_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        with self._call("find"):
            return [self.kept.get(key) for key in keys]

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        with self._call("keep"):
            return [self.kept.setdefault(entry.key, entry).advice for entry in entries]

    def get_notes(self, key: bytes) -> str | None:
        with self._call("get_notes"):
            return self.notes.get(key)

    def keep_notes(self, key: bytes, notes: str) -> str:
        with self._call("keep_notes"):
            return self.notes.setdefault(key, notes)

    def take_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> set[bytes]:
        with self._call("take"):
            now = time.monotonic()
            free = {key for key in keys if key not in self.leases or self.leases[key][1] < now}
            mine = free | {key for key in keys if key in self.leases and self.leases[key][0] == holder}
            self.leases.update(dict.fromkeys(mine, (holder, now + lease_s)))
            return mine

    def renew_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> None:
        with self._call("renew"):
            mine = [key for key in keys if key in self.leases and self.leases[key][0] == holder]
            self.leases.update(dict.fromkeys(mine, (holder, time.monotonic() + lease_s)))

    def end_leases(self, keys: Sequence[bytes], holder: bytes) -> None:
        with self._call("end"):
            for key in keys:
                if key in self.leases and self.leases[key][0] == holder:
                    del self.leases[key]

    def close(self) -> None:
        pass


async def write_notes(prompt: Prompt, max_tokens: int) -> Written | AdviceError:
    """A model that briefs itself, and is cut off."""
    return Written("Stick on 17 or more. Hit belo", whole=False)


def make_gateway(
    model: FakeModel,
    store: FakeStore | SharedStore | None = None,
    metrics: GatewayMetrics | None = None,
    briefing: str = "none",
    write: Write = write_notes,
    make_queue: MakeQueue = JoiningQueue,
    **settings: object,
) -> Gateway:
    """A gateway over fakes; ``settings`` are those of ``GatewaySettings`` and ``QueueLimits``."""
    builder = ChatPrompts(FakeTokenizer(), "scored")
    limits = {name: settings.pop(name) for name in ("batch", "max_waiting", "aborts") if name in settings}
    options = GatewaySettings(
        **{"identity": "fake", "limits": QueueLimits(**{"batch": 32, "max_waiting": 4096, **limits}), **settings}  # type: ignore[arg-type]
    )
    store = store or FakeStore()
    notes = Briefing(briefing, 220, options.identity, builder, write, store)
    return Gateway(options, builder, notes, model, store, metrics or GatewayMetrics("fake"), make_queue)


def request(
    state: object = "sum 12", actions: tuple[str, ...] = ("stick", "hit"), rules: str = "Play."
) -> AdviceRequest:
    """A valid request."""
    return AdviceRequest(rules, str(state), actions)


async def no_figures() -> bytes:
    """Figures of a gateway that has none."""
    return b"tutor_advice_total 1\n"
