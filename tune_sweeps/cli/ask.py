"""Implement ``tutor ask``: one question to a tutor, and everything about its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tune_sweeps.cli.options import JsonOption, TaskArgument, TutorArgument

if TYPE_CHECKING:
    from rich.console import Console

    from rllib_plugins.tasks import Task


def ask(
    tutor: TutorArgument,
    task: TaskArgument,
    state: Annotated[
        str | None,
        typer.Option(help="The state in words; all actions count as legal. Default: a state that students visit."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed that draws the state.")] = 0,
    notes: Annotated[
        Path | None, typer.Option(help="Write the tutor's strategy notes (its briefing) to this .txt or .md file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a tutor one question, and show the prompt, the probability of each action, the legal mass and the latency.

    A tutor that runs already (`tutor serve`) answers at once. Otherwise one is started for this question.

    Examples:

    - `tutor ask smollm2 blackjack`

    - `tutor ask oracle connect_four --seed 3`

    - `tutor ask llama blackjack --state 'Your cards add up to 20. The dealer shows 6. You have no usable ace.'`
    """
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_tutor
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.console.terminal import make_console

    config = check_tutor(tutor)
    if notes is not None:
        _check_notes(notes)
    chosen = load_task(task).with_hint(config is not None and config.hint)
    console = make_console()
    if config is None or not config.is_served:
        _refuse_words(tutor, {"--state": state, "--notes": notes})
        _ask_in_process(console, tutor, chosen, seed, as_json)
        return
    import numpy as np

    from rllib_plugins.advising.llm import Prior, Reading, read
    from tune_sweeps.console.terminal import log_path, quiet
    from tutor_service.schema import AdviceRequest
    from tutor_service.serving.ask import ask as ask_tutor

    if state is None:
        state, actions = _visited(chosen, seed)
    else:
        actions = chosen.actions
    with quiet(log_path("ask"), as_json) as screen:
        request = AdviceRequest(chosen.rules, state, tuple(actions), chosen.synonyms_of(actions))
        prior = Prior.of(chosen, config.calibration)
        others = prior.questions if prior else ()
        asked = ask_tutor(config, request, others=others, progress=screen.print)
    advice = asked.advice
    legal = np.isin(chosen.actions, actions)
    rows = read([advice], legal[None], Reading.of(config), prior.mean(asked.others) if prior else None)
    shown = {"raw": advice.probabilities, "read": rows.opinions[0][legal], "followed": rows.followed[0][legal]}
    if notes is not None:
        _write_notes(notes, asked.briefing, tutor)
    if as_json:
        found = {"prompt": asked.prompt, "thought": asked.thought, "notes": asked.notes}
        counted = {name: getattr(advice, name) for name in ("legal_mass", "source", "latency_ms", "tokens", "invalid")}
        print_json(_values(state, actions, shown) | found | counted | {"round_trip_ms": asked.round_trip_ms})
        return
    console.print(compact(asked.prompt), style="dim", markup=False)
    if asked.thought:
        console.print(f"thought: {asked.thought}", markup=False)
    _show(console, actions, shown)
    console.print(Reading.of(config).words)
    console.print(
        f"legal mass {advice.legal_mass:.3f} · from the {advice.source} · {advice.latency_ms:.1f} ms in the service, "
        f"{asked.round_trip_ms:.1f} ms round trip · {advice.tokens} tokens"
        + (f" · {advice.invalid} invalid answers before" if advice.invalid else "")
    )
    if doubt := config.doubt(advice.legal_mass):
        console.print(f"warning: {doubt}", style="yellow", markup=False)
    if notes is not None:
        console.print(f"the notes are in {notes}: edit them, and set `briefing: {notes}` in a tutor file", markup=False)
    for note in asked.notes:
        console.print(note, style="dim", markup=False)


def _refuse_words(tutor: str, options: Mapping[str, object]) -> None:
    """Refuse what only a tutor that reads words takes."""
    from tutor_service.errors import UserError

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(
            f"tutor '{tutor}' reads and writes no words: leave out {' and '.join(given)}; --seed draws a state."
        )


def _check_notes(path: Path) -> None:
    from tutor_service.errors import UserError
    from tutor_service.tutor_files import NOTES_SUFFIXES

    if path.suffix not in NOTES_SUFFIXES:
        raise UserError(f"--notes {path}: the name must end in {' or '.join(NOTES_SUFFIXES)}.")
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--notes {path}: no file can be written there. Name one in a folder that exists.")


def _write_notes(path: Path, briefing: str | None, tutor: str) -> None:
    from tutor_service.errors import UserError

    if briefing is None:
        raise UserError(f"tutor '{tutor}' reads no strategy notes. Set briefing to 'self' or to notes in its file.")
    try:
        path.write_text(briefing + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--notes {path}: the file cannot be written ({error.strerror}).") from error


def compact(prompt: str) -> str:
    """Count the line feeds that fill up the rules' last block of a prompt, instead of showing them."""
    return re.sub(
        r"\n{4,}",
        lambda found: f"\n[{len(found[0]) - 2} more line feeds, to fill a block of the prefix cache]\n",
        prompt,
    )


def _visited(task: Task, seed: int) -> tuple[str, tuple[str, ...]]:
    """A state that students visit, with a choice to make, and its legal actions."""
    from rllib_plugins.grading.states import visited_states

    states, _ = visited_states(task, 20, seed)
    legal = task.legal_batch(states)
    row = 0 if legal is None else int((legal.sum(axis=1) > 1).argmax())
    actions = task.actions if legal is None else tuple(a for a, ok in zip(task.actions, legal[row], strict=True) if ok)
    return task.describe(task.raw_observation(states[row])), actions


def _ask_in_process(console: Console, tutor: str, task: Task, seed: int, as_json: bool) -> None:
    import numpy as np

    from rllib_plugins.advising.advisor import legal_mask
    from rllib_plugins.advising.llm import LLMAdvisor, question, raw_rows
    from rllib_plugins.grading.states import visited_states
    from rllib_plugins.tutors import make_advisor
    from tune_sweeps.console.rows import print_json
    from tutor_service.errors import UserError

    advisor = make_advisor(tutor, task)
    if advisor is None:
        raise UserError("tutor 'none' is nobody: there is no one to ask. See `tutor tutors`.")
    states, _ = visited_states(task, 20, seed)
    batch = advisor.ask(states)
    answered = np.isfinite(batch.probabilities).all(axis=1)
    if not answered.any():
        raise UserError(f"'{tutor}' was asked none of {len(states)} states of '{task.name}'. Try another --seed.")
    row = int(answered.argmax())
    state = task.describe(task.raw_observation(states[row]))
    if not isinstance(advisor, LLMAdvisor) or batch.opinions is None:
        shown, said = (
            {"probability": batch.probabilities[row]},
            f"'{tutor}' is a scripted reference: it reads no prompt",
        )
    else:
        legal = legal_mask(task, states)
        raw = raw_rows(advisor.client.advise([question(task, states[row], legal[row])]), legal[[row]])
        shown = {"raw": raw[0], "read": batch.opinions[row], "followed": batch.probabilities[row]}
        said = f"{advisor.reader.reading.words}\n'{tutor}' is a recording: it reads no prompt"
    if as_json:
        print_json(_values(state, task.actions, shown))
        return
    console.print(state, style="dim")
    _show(console, task.actions, shown)
    console.print(said)


def _values(state: str, actions: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return a state and its distributions, by name and action, for a program."""
    found = {name: dict(zip(actions, (float(value) for value in row), strict=True)) for name, row in columns.items()}
    return {"state": state, **found}


def _show(console: Console, actions: Sequence[str], columns: Mapping[str, Sequence[float]]) -> None:
    """Print a row per action and a column per distribution, the last one as bars too."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("action", *columns, ""):
        table.add_column(name, justify="right" if name in columns else "left")
    for action, *probabilities in zip(actions, *columns.values(), strict=True):
        table.add_row(action, *(f"{value:.3f}" for value in probabilities), "█" * round(30 * probabilities[-1]))
    console.print(table)
