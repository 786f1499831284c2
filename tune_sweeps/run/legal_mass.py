"""Look, before a sweep starts, how much of its probability each tutor puts on the legal actions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.llm import probe_states, question
from rllib_plugins.tasks import Task
from tutor_service.client import connect
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.schema import Ask

NUM_STATES = 8
_DEADLINE_S = 120.0


def find_doubts(tutors: Iterable[TutorConfig], tasks: Iterable[Task]) -> dict[str, str]:
    """Return what to say of tutors with too little legal mass, by tutor and task.

    A few states of each task are asked about that students will ask about: nothing is paid for twice.

    Args:
        tutors: LLMs, deployed or recorded.
        tasks: What they advise on.
    """
    doubts = {}
    played = list(tasks)
    for tutor in tutors:
        client = connect(tutor, deadline_s=_DEADLINE_S)
        for task in played:
            if doubt := find_doubt(tutor, task.with_hint(tutor.hint), client.advise):
                doubts[f"{tutor.name} on {task.name}"] = doubt
    return doubts


def find_doubt(tutor: TutorConfig, task: Task, ask: Ask) -> str | None:
    """Return what to say of one tutor on one task; None where it puts enough on the legal actions, or says nothing."""
    try:
        states = probe_states(task)[:NUM_STATES]
    except UserError:  # too few states with a choice: there is little to advise on
        return None
    legal = legal_mask(task, states)
    answers = ask([question(task, *pair) for pair in zip(states, legal, strict=True)])
    masses = [answer.legal_mass for answer in answers if answer is not None]
    return tutor.doubt(float(np.mean(masses))) if masses else None
