"""From the name of a tutor to an advisor. Knows which names there are; must not know how any of them advises."""

from __future__ import annotations

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.scripted_advisors import MixtureAdvisor, OracleAdvisor, RandomAdvisor, WorstAdvisor
from rllib_plugins.advising.tutor_advisor import TutorAdvisor
from rllib_plugins.tasks.base import Task
from tutor_service.client import connect
from tutor_service.config import TutorConfig, catalog_names, load_tutor
from tutor_service.errors import UserError, unknown_name

NONE = "none"
_MIXTURE = "oracle+random:"
_YAML = (".yaml", ".yml")
_SCRIPTED = {"oracle": OracleAdvisor, "random": RandomAdvisor, "worst": WorstAdvisor}


def check_tutor(tutor: str) -> TutorConfig | None:
    """The tutor that a service has to be deployed for; None for ``none`` and for the scripted references.

    Args:
        tutor: ``none``, a reference (``oracle``, ``random``, ``worst``, ``oracle+random:SHARE``), a name of the
            catalog, or the path of a YAML file.

    Raises:
        UserError: There is no such tutor; the message lists those that there are.
    """
    if tutor == NONE or _is_scripted(tutor):
        return None
    names = catalog_names()
    if not tutor.endswith(_YAML) and tutor not in names:
        raise unknown_name("tutor", tutor, {*names, *_SCRIPTED, NONE, f"{_MIXTURE}0.25"})
    config = load_tutor(tutor)
    if config.backend == "reference":
        if config.name not in _SCRIPTED:
            raise unknown_name("reference tutor", config.name, _SCRIPTED)
        return None
    return config


def make_advisor(tutor: str | TutorConfig, task: Task, *, deadline_s: float = 30.0) -> Advisor | None:
    """The advisor of a trial. Contacts nothing: a service is called at the first question.

    Args:
        tutor: As for ``check_tutor``, or a tutor's configuration.
        task: The task that is advised on.
        deadline_s: Most seconds that a vector step waits for advice.

    Returns:
        None for ``none``.

    Raises:
        UserError: There is no such tutor, or the task has no oracle for it.
    """
    if tutor == NONE:
        return None
    if isinstance(tutor, str):
        config = check_tutor(tutor)
        name = tutor if _is_scripted(tutor) else load_tutor(tutor).name
    else:
        config, name = (None if tutor.backend == "reference" else tutor), tutor.name
    if config is not None:
        return TutorAdvisor(task, connect(config, deadline_s=deadline_s))
    if name.startswith(_MIXTURE):
        return MixtureAdvisor(task, _random_share(name))
    if name not in _SCRIPTED:
        raise unknown_name("reference tutor", name, _SCRIPTED)
    return _SCRIPTED[name](task)


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


__all__ = [
    "MixtureAdvisor",
    "OracleAdvisor",
    "RandomAdvisor",
    "TutorAdvisor",
    "WorstAdvisor",
    "check_tutor",
    "make_advisor",
]
