"""Have each tutor play by itself before a sweep's trials: students learn whether, and up to where, to follow it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rllib_plugins.audition.own_play import OwnPlay, own_play
from rllib_plugins.audition.worth import KnownPlay, Play, known_play, plays_best, worth_following
from rllib_plugins.config import StudentConfig
from rllib_plugins.uses.options import make_use
from tune_sweeps.definition.grid import Trial

logger = logging.getLogger(__name__)

Played: TypeAlias = dict[str, dict[str, OwnPlay]]
"""By task and tutor."""

SEED = 0
"""Of the episodes: the same in every sweep."""
MOST_SECONDS = 600.0
"""How long a tutor may play one task: one that is slow must not keep its students waiting for hours."""


class Playing(NamedTuple):
    """How tutors play.

    Attributes:
        episodes: Per tutor and task; 0: none.
        num_cpus: Ray CPUs that a tutor's play takes, as a trial does: so many run at a time.
    """

    episodes: int
    num_cpus: float


def play_tutors(
    trials: Iterable[Trial], begun: Container[str], kept: Path, playing: Playing, say: Callable[[str], None]
) -> Played:
    """Have tutors play where students ask for their level; what was played in an earlier run of the sweep is read back.

    Ray and the tutors must be up. A tutor that cannot play is left out: its students go by their own evidence. So do
    those of one that had not played when the first of them began, since all students of a tutor are to know the same.

    Args:
        trials: Those of the sweep.
        begun: Keys of the trials that have been started before.
        kept: File that holds what was played.
        playing: How.
        say: Tells the user what goes on.
    """
    import ray

    played = read_played(kept)
    asking = [trial for trial in trials if trial.cell.tutored and asks_for_level(trial.student)]
    settled = {(task, tutor) for task, tutors in played.items() for tutor in tutors}
    settled |= {_pair(trial) for trial in asking if trial.key in begun}
    unknown = {_pair(trial): trial.student for trial in asking if _pair(trial) not in settled}
    if not playing.episodes or not unknown:
        return played
    names = ", ".join(f"{tutor} on {task}" for task, tutor in unknown)
    say(f"tutors play {playing.episodes} episodes by themselves: {names}")
    remote = ray.remote(num_cpus=playing.num_cpus)
    play, others = remote(play_tutor), remote(play_others)
    tasks = {task: student for (task, _), student in unknown.items()}
    known = {task: others.remote(student, playing.episodes) for task, student in tasks.items()}
    futures = {
        (task, tutor): play.remote(student, playing.episodes, known[task]) for (task, tutor), student in unknown.items()
    }
    for (task, tutor), future in futures.items():
        try:
            found = ray.get(future)
        except ray.exceptions.RayError as error:  # of the task, or of the process or node that it ran on
            reason = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            say(f"warning: {tutor} cannot play {task} by itself: {reason}")
            continue
        played.setdefault(task, {})[tutor] = found
        _keep(kept, played)
        say(_line(task, tutor, found))
    return played


def _pair(trial: Trial) -> tuple[str, str]:
    return trial.cell.task, trial.cell.tutor


def asks_for_level(student: StudentConfig) -> bool:
    """Say whether a student follows its tutor only up to the tutor's level, which nobody has told it."""
    advice = student.advice
    use = make_use(advice.named_use, advice.use_options)
    return advice.tutor_return is None and use.reads_level


def with_level(trial: Trial, played: Played) -> StudentConfig:
    """Return a trial's student, told what its tutor reaches where that was played."""
    found = played.get(trial.cell.task, {}).get(trial.cell.tutor)
    if found is None or not asks_for_level(trial.student):
        return trial.student
    advice = trial.student.advice.model_copy(update=found.as_told())
    return trial.student.model_copy(update={"advice": advice})


def read_played(kept: Path) -> Played:
    """Read what was played; nothing where there is no file, or one that a loss of power or another version left."""
    if not kept.exists():
        return {}
    try:
        tasks = json.loads(kept.read_text(encoding="utf-8"))
        return {task: {tutor: OwnPlay(**fields) for tutor, fields in tutors.items()} for task, tutors in tasks.items()}
    except (ValueError, TypeError, AttributeError) as error:
        logger.warning("what tutors reached by themselves is not known any more: '%s' cannot be read: %r", kept, error)
        return {}


def as_record(played: Played) -> dict[str, Any]:
    """Return what was played as JSON keeps it."""
    return {task: {tutor: asdict(found) for tutor, found in tutors.items()} for task, tutors in played.items()}


def _keep(kept: Path, played: Played) -> None:
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(as_record(played)), encoding="utf-8")
    part.rename(kept)


def _line(task: str, tutor: str, found: OwnPlay) -> str:
    reached = f"{found.return_mean:.3g}" + (f" ± {found.return_se:.2g}" if found.return_se else "")
    verdict = {
        True: "followed" if found.is_best else "followed up to there",
        False: "not followed",
        None: "followed where it is shown to help",
    }
    if found.tutor_return is None:
        return f"{tutor} on {task}: {found.missed_share:.0%} of its answers were missed, so its own level is not known"
    return f"{tutor} on {task}: return {reached} when it plays itself; {verdict[found.follow]}"


def play_others(student: StudentConfig, episodes: int) -> KnownPlay:
    """Have the players that a tutor is measured against play a student's task."""
    from rllib_plugins.tasks import load_task

    task = load_task(student.task, **student.task_options)
    try:
        return known_play(task, episodes=episodes, seed=SEED)
    finally:
        task.close()


def play_tutor(student: StudentConfig, episodes: int, known: KnownPlay) -> OwnPlay:
    """Have a student's tutor play its task, and say whether it is worth following.

    Raises:
        UserError: It takes longer than ``MOST_SECONDS``.
    """
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import make_advisor

    task = load_task(student.task, **student.task_options)
    try:
        advisor = make_advisor(student.tutor, task, deadline_s=student.advice.patience_s)
        assert advisor is not None, f"tutor '{student.tutor}' advises nobody"
        played = own_play(task, advisor, episodes=episodes, seed=SEED, most_seconds=MOST_SECONDS)
        if played.tutor_return is None:
            return played
        play = Play(played.return_mean, played.return_se, played.return_std)
        return replace(played, follow=worth_following(play, known), is_best=plays_best(play, known))
    finally:
        task.close()
