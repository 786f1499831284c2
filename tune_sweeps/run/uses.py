"""Say what students make of advice, for the start of a sweep."""

from __future__ import annotations

from collections.abc import Iterable

from tune_sweeps.definition.grid import Trial


def uses_line(trials: Iterable[Trial]) -> str:
    """Return the uses of advice in words, with the algorithms of each where there are several.

    Args:
        trials: Of the sweep; those of untutored students and of controls do not count.
    """
    algorithms: dict[str, dict[str, None]] = {}
    for trial in trials:
        if trial.cell.tutored and trial.cell.use:
            algorithms.setdefault(trial.cell.use, {})[trial.cell.algorithm] = None
    if not algorithms:
        return "no student has a tutor"
    if len(algorithms) == 1:
        return f"advice is used by: {next(iter(algorithms))}"
    return "advice is used by: " + ", ".join(f"{use} ({', '.join(names)})" for use, names in algorithms.items())
