"""Hold an audition of a tutor that is brought up for it, or of its recorded answers. Knows how tutors are reached.

The ways differ in how the tutor is asked and in how its answers are read. Of the askings, notes behind the rules travel
with each question, so that one deployment answers them all; another decoding takes another deployment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias, cast

from rich.console import Console

from rllib_plugins.audition import Answers, Asking, Audition, Candidate, all_ways, audition
from rllib_plugins.audition.ways import Calibration, Following
from rllib_plugins.tasks.base import Task
from tune_sweeps.cluster.session import local_cpus, ray_cluster, wanted_address
from tune_sweeps.cluster.tutors import deployed
from tune_sweeps.console.signals import cleaned_up
from tune_sweeps.run.audition_view import AuditionView
from tutor_service.client import TutorClient, connect, service_url
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, unknown_name
from tutor_service.prompts.layout import EMPTY_STATE, with_notes
from tutor_service.recorded import RecordedSetting, open_recorded
from tutor_service.schema import Advice, AdviceRequest, Ask
from tutor_service.serving.ask import ask as ask_tutor
from tutor_service.yaml_files import write_yaml

NO_NOTES = "none"
HINT = "hint"
SELF = "self"
GIVEN = "own"
VALUES = {
    "calibration": ("none", "empty", "batch"),
    "advice": ("best", "sampled"),
    "briefing": (NO_NOTES, HINT, SELF, GIVEN),
    "decoding": ("scored", "reasoned", "text"),
}
"""Fields that an audition varies, with all their values."""

_FIELDS: dict[str, dict[str, object]] = {
    NO_NOTES: {"briefing": NO_NOTES, "hint": False},
    HINT: {"briefing": NO_NOTES, "hint": True},
    SELF: {"briefing": SELF, "hint": False},
    GIVEN: {"hint": False},
}
"""What a tutor file says for each briefing."""

_DEADLINE_S = 3_600.0

Deploy: TypeAlias = Callable[[str, str], None]
"""Has the tutor up with a decoding and a briefing."""


@dataclass(frozen=True)
class Wanted:
    """Say what is to be tried.

    Attributes:
        values: By field, the values to try; fields that are missing are tried in all values, ``decoding`` in the
            tutor's own.
        episodes: Episodes that say enough about one way; None: by their length.
        seed: Seeds the episodes.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    episodes: int | None = None
    seed: int = 0


def wanted_ways(settings: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read settings like ``calibration=none,batch``.

    Raises:
        UserError: No such field or value.
    """
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in VALUES:
            raise unknown_name("field of an audition", name, VALUES, f"in --set '{setting}'")
        values = tuple(dict.fromkeys(part.strip() for part in text.strip("[]").split(",")))
        for value in values:
            if value not in VALUES[name]:
                raise unknown_name(name, value, VALUES[name], f"in --set '{setting}'")
        found[name] = values
    return found


@dataclass(frozen=True)
class Held:
    """Hold an audition and what is to be kept of it.

    Attributes:
        audition: What playing the tutor showed.
        tutor_file: A tutor file, as YAML, that holds the best way.
    """

    audition: Audition
    tutor_file: str


def hold_audition(tutor: TutorConfig, task: Task, wanted: Wanted, address: str | None, screen: Console) -> Held:
    """Bring the tutor up, play it in every way, and take it down again.

    Args:
        tutor: An LLM or its recorded answers.
        task: What it plays.
        wanted: What is tried.
        address: Address of a running Ray; None: ``$RAY_ADDRESS``, else a local one where it takes one.
        screen: Where the user looks.

    Raises:
        UserError: The tutor cannot be brought up or gives no advice at all.
    """
    with askings(tutor, task, wanted, address, screen) as asks, AuditionView(screen) as show:
        answers = {asking: Answers(task, entry.ask, entry.rules, on_ask=show.refresh) for asking, entry in asks.items()}
        ways = all_ways(
            answers,
            cast("tuple[Calibration, ...]", wanted.values.get("calibration", VALUES["calibration"])),
            cast("tuple[Following, ...]", wanted.values.get("advice", VALUES["advice"])),
        )
        try:
            found = audition(
                task,
                ways,
                Candidate(tutor.name, answers, tutor.temperature),
                episodes=wanted.episodes,
                seed=wanted.seed,
                on_change=show.update,
            )
        except UserError as error:
            reasons = {reason for entry in asks.values() if (reason := entry.client.stats.last_error)}
            raise UserError(f"{error} {'; '.join(sorted(reasons))}".strip()) from error
        return Held(found, _tutor_file(tutor, found, asks[found.best.player.asking].fields))


@dataclass(frozen=True)
class AskedTutor:
    """Reach a tutor that is asked in one way.

    Attributes:
        ask: The tutor.
        client: What it is asked by; knows why an answer is missing.
        fields: What a tutor file says for this way.
        rules: What the tutor reads before a state.
    """

    ask: Ask
    client: TutorClient
    fields: Mapping[str, object]
    rules: str


@contextmanager
def askings(
    tutor: TutorConfig, task: Task, wanted: Wanted, address: str | None, screen: Console
) -> Iterator[dict[Asking, AskedTutor]]:
    """Bring a tutor up for the time of a ``with`` block, and yield the ways in which it is asked.

    Arguments are those of ``hold_audition``.
    """
    if tutor.file is not None:
        yield _recorded(tutor, task)
        return
    decodings = wanted.values.get("decoding", (tutor.decoding,))
    briefings = _briefings(tutor, task, wanted)
    if service_url() and tuple(decodings) != (tutor.decoding,):
        raise UserError("the tutor at $LLM_TUTORS_URL is somebody else's: its decoding cannot be changed from here.")
    with _deployments(tutor, address, screen) as deploy:
        rules = {name: text for name in briefings if (text := _rules(tutor, task, name, deploy, screen))}
        clients = {decoding: connect(tutor, deadline_s=_DEADLINE_S) for decoding in decodings}
        yield {
            Asking(decoding, name): AskedTutor(
                _asking(deploy, decoding, client), client, {"decoding": decoding, **_FIELDS.get(name, {})}, rules[name]
            )
            for decoding, client in clients.items()
            for name in rules
        }


def _briefings(tutor: TutorConfig, task: Task, wanted: Wanted) -> list[str]:
    """Return the briefings to try: those asked for, else all that there can be."""
    possible = [NO_NOTES]
    if task.hint:
        possible.append(HINT)
    if not service_url():
        possible.append(SELF)
    if tutor.briefing not in {NO_NOTES, SELF}:
        possible.append(GIVEN)
    chosen = wanted.values.get("briefing", tuple(possible))
    for name in chosen:
        if name not in possible:
            raise UserError(
                f"--set briefing={name}: can be tried with {', '.join(possible)}. 'hint' takes a task with Task.hint, "
                "'own' a tutor file with notes, 'self' a tutor that is not reached at $LLM_TUTORS_URL."
            )
    return list(chosen)


def _rules(tutor: TutorConfig, task: Task, briefing: str, deploy: Deploy, screen: Console) -> str | None:
    """Return what a tutor reads before the state, as one that is deployed with a briefing does.

    Returns:
        None where the tutor cannot write notes; why is told.
    """
    if briefing == HINT:
        return task.with_hint(True).rules
    if briefing == GIVEN:
        return with_notes(task.rules, tutor.briefing)
    if briefing != SELF:
        return task.rules
    screen.print(f"having '{tutor.name}' write notes on '{task.name}'")
    writer = tutor.model_copy(update={"briefing": SELF, "hint": False})
    try:
        deploy(tutor.decoding, SELF)
        asked = ask_tutor(writer, AdviceRequest(task.rules, EMPTY_STATE, task.actions), progress=screen.print)
    except UserError as error:
        screen.print(f"tried without notes of its own: {error}")
        return None
    screen.print(f"its notes: {asked.briefing}")
    return with_notes(task.rules, asked.briefing or "")


def _asking(deploy: Deploy, decoding: str, client: TutorClient) -> Ask:
    def ask(requests: list[AdviceRequest]) -> Sequence[Advice | None]:
        deploy(decoding, NO_NOTES)
        return client.advise(requests)

    return ask


@contextmanager
def _deployments(tutor: TutorConfig, address: str | None, screen: Console) -> Iterator[Deploy]:
    """Yield what deploys the tutor with a decoding and a briefing, unless it runs with these already."""
    if service_url():
        yield lambda decoding, briefing: None
        return
    cpus = local_cpus(tutor.scaling.num_cpus * tutor.scaling.num_started)
    with ray_cluster(wanted_address(address), cpus) as cluster, ExitStack() as running:
        current = ("", "")

        def deploy(decoding: str, briefing: str) -> None:
            nonlocal current
            if (decoding, briefing) != current:
                running.close()
                cleaned_up()  # Ctrl-C ends the audition still
                config = tutor.model_copy(update={"decoding": decoding, "briefing": briefing, "hint": False})
                running.enter_context(deployed([config], cluster, screen.print))
                current = (decoding, briefing)

        yield deploy


def _recorded(tutor: TutorConfig, task: Task) -> dict[Asking, AskedTutor]:
    """Find the ways in which a recorded tutor was asked about a task."""
    assert tutor.file is not None
    ways = open_recorded(tutor.file, tutor.identity).ways(task.rules)
    found: dict[Asking, AskedTutor] = {}
    for way in ways:
        identity = tutor.identity
        if len(ways) > 1:
            identity = way.identity if [other.identity for other in ways].count(way.identity) == 1 else way.text
        client = connect(tutor.model_copy(update={"identity": identity}), deadline_s=_DEADLINE_S)
        found[_name(way, task, found)] = AskedTutor(
            client.advise, client, {"identity": identity} if identity else {}, task.rules
        )
    return found


def _name(way: RecordedSetting, task: Task, taken: Container[Asking]) -> Asking:
    """Name a recorded way by what its identity says, else by whether notes stood behind the rules."""
    try:
        said = json.loads(way.identity)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    decoding = str(said.get("decoding", "recorded"))
    known = {task.rules.strip(): NO_NOTES, task.with_hint(True).rules.strip(): HINT}
    briefing = str(said.get("way") or known.get(way.rules.strip(), "notes"))
    names = (Asking(decoding, briefing if number == 1 else f"{briefing} {number}") for number in count(1))
    return next(name for name in names if name not in taken)


def _tutor_file(tutor: TutorConfig, found: Audition, asking: Mapping[str, object]) -> str:
    """Return the tutor's file with the best way in it, and the verdict above."""
    _, calibration, advice = found.best.player
    fields = tutor.model_dump(mode="json", exclude_defaults=True)
    fields |= {"name": f"{tutor.name}-{found.task}", "calibration": calibration, "advice": advice, **asking}
    return f"# {found.verdict}\n{write_yaml(fields)}"
