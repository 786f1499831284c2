"""Make a tutor's advisor from its name. Must not know how any tutor advises."""

from __future__ import annotations

from collections.abc import Iterator

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.llm import LLMAdvisor, Reader, Reading, question, simple_play
from rllib_plugins.reference_tutors import MixtureAdvisor, OracleAdvisor, RandomAdvisor, WorstAdvisor
from rllib_plugins.tasks.base import Task
from tutor_service.client import connect
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, unknown_name
from tutor_service.recorded import open_recorded
from tutor_service.tutor_files import catalog_names, is_tutor_file, load_tutor

NONE = "none"
_MIXTURE = "oracle+random:"
_SCRIPTED = {"oracle": OracleAdvisor, "random": RandomAdvisor, "worst": WorstAdvisor}


def check_tutor(tutor: str) -> TutorConfig | None:
    """Return the configuration of an LLM or its recorded answers; None for ``none`` and scripted references.

    Args:
        tutor: ``none``, a reference (``oracle``, ``random``, ``worst``, ``oracle+random:SHARE``), a name of the
            catalog, the path of a YAML file, or of a file of recorded answers.

    Raises:
        UserError: There is no such tutor; the message lists those that there are.
    """
    if tutor == NONE or _is_scripted(tutor):
        return None
    names = catalog_names()
    if not is_tutor_file(tutor) and tutor not in names:
        raise unknown_name("tutor", tutor, {*names, *_SCRIPTED, NONE, f"{_MIXTURE}0.25"})
    config = load_tutor(tutor)
    if config.backend == "reference":
        if config.name not in _SCRIPTED:
            raise unknown_name("reference tutor", config.name, _SCRIPTED)
        return None
    if config.name == NONE or config.name in _SCRIPTED:
        meant = "no tutor" if config.name == NONE else "a scripted reference"
        raise UserError(f"tutor file '{tutor}': name = '{config.name}' means {meant}. Give it another name there.")
    return config


def make_advisor(tutor: str | TutorConfig, task: Task, *, deadline_s: float = 30.0) -> Advisor | None:
    """Build the advisor of a trial. Contacts nothing: a service is called at the first question.

    Args:
        tutor: As for ``check_tutor``, or a tutor's configuration.
        task: The task that is advised on.
        deadline_s: Most seconds that a vector step waits for advice.

    Returns:
        None for ``none``.

    Raises:
        UserError: There is no such tutor, the task has no oracle for it, or its recorded answers are to another task.
    """
    if tutor == NONE:
        return None
    if isinstance(tutor, str):
        config = check_tutor(tutor)
        name = tutor if _is_scripted(tutor) else load_tutor(tutor).name
    else:
        config, name = (None if tutor.backend == "reference" else tutor), tutor.name
    if config is not None:
        task = task.with_hint(config.hint)
        check_recorded(config, task)
        return LLMAdvisor(task, connect(config, deadline_s=deadline_s), Reading.of(config))
    if name.startswith(_MIXTURE):
        return MixtureAdvisor(task, _random_share(name))
    if name not in _SCRIPTED:
        raise unknown_name("reference tutor", name, _SCRIPTED)
    return _SCRIPTED[name](task)


def check_recorded(tutor: TutorConfig, task: Task, several_ways: bool = False) -> None:
    """Refuse recorded answers that are not about a task; other tutors pass.

    Args:
        tutor: Any tutor.
        task: What it is to advise on.
        several_ways: Whether the same question may have been answered in several ways.

    Raises:
        UserError: The answers are to another task or label set, too few for the tutor's calibration, or the file cannot
            be read.
    """
    if tutor.file is None:
        return
    answers = open_recorded(tutor.file, tutor.identity)
    answers.check(task.name, task.rules, task.actions, _questions(task))
    if not several_ways:
        answers.check_one_way(task.rules)
        Reader(task, Reading.of(tutor), connect(tutor)).is_ready()


def _questions(task: Task) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield questions that simple players meet."""
    for state, legal in simple_play(task):
        asked = question(task, state, legal)
        yield asked.state, asked.actions


def _is_scripted(tutor: str) -> bool:
    if tutor.startswith(_MIXTURE):
        _random_share(tutor)
        return True
    return tutor in _SCRIPTED


def _random_share(tutor: str) -> float:
    text = tutor.removeprefix(_MIXTURE)
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise UserError(f"tutor '{tutor}': the random share '{text}' must be a number in [0, 1], e.g. {_MIXTURE}0.25.")
    return share
