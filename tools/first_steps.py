"""Record a new user's path, from a task of their own to a report, as ``docs/first_steps.md``.

    .venv/bin/python -m tools.first_steps

Runs each command in an empty folder, with a home of its own, and writes it down with what the terminal showed. The
tutor is a file of answers that this program writes, so that all of it takes minutes and no LLM.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "first_steps.md"
LENGTH = 8
"""Cells of the corridor that ``tutor init task`` writes."""

SURE = 0.7
"""Probability that the answers give to the right direction."""


class Step(NamedTuple):
    """One command, and what is said before it."""

    words: str
    command: str


INTRODUCTION = """# First steps

This page goes from a task of your own to a report, and shows what each command prints. `python -m tools.first_steps`
runs the commands in an empty folder and writes the page; tables have the width used when output is not a terminal.

Begin with `source .venv/bin/activate` in the checkout, so that `tutor` is found, and go to an empty folder.

"""
STEPS = (
    Step(
        "Write a task that works, with its test: a corridor with a door, for you to replace.",
        "tutor init task maze",
    ),
    Step("Run its test, which plays it as a sweep will.", "python -m pytest -q test_maze.py"),
    Step(
        "Is a tutor worth following, and in which way of asking and reading it? The recording below used "
        "`answers.jsonl`, written by `tools/first_steps.py`: the way to the door with probability 0.7 in every state. "
        "To follow this page without that file, let an LLM take its place: `tutor audition smollm2 maze:Maze`, and "
        "`audition-smollm2-maze.yaml` in the commands below.",
        "tutor audition answers.jsonl maze:Maze",
    ),
    Step(
        "Run a sweep: students without a tutor, with this tutor asked and read in the best way found, and with the "
        "task's own oracle, three seeds each.",
        "tutor sweep --task maze:Maze --set 'tutors=[runs/audition-answers-maze.yaml,oracle]' "
        "--set algorithms=[ppo] --name first",
    ),
    Step("Show the report again at any time.", "tutor report first"),
)


def answers(rules: str, actions: tuple[str, ...]) -> list[dict[str, object]]:
    """Return a tutor's answers to every state of the corridor: right, and unsure."""
    rows: list[dict[str, object]] = []
    for cell in range(LENGTH):
        for door in set(range(LENGTH)) - {cell}:
            right = SURE if door > cell else 1 - SURE
            state = f"You are in cell {cell}. The door is in cell {door}."
            row = {"rules": rules, "state": state, "actions": actions, "probabilities": [1 - right, right]}
            rows.append(row | {"legal_mass": 1.0})
    return rows


def tidy(shown: str, folder: Path) -> str:
    """Return what a terminal showed without places and names of this machine, and without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r\n", "\n")
    for place in (folder, folder.resolve()):
        text = text.replace(f"{place}/", "").replace(str(place), ".")
    text = text.replace(socket.gethostname(), "HOST")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def record(step: Step, folder: Path) -> str:
    """Run a step and return it as Markdown.

    Raises:
        RuntimeError: The command failed.
    """
    environ = {name: value for name, value in os.environ.items() if name not in {"MLFLOW_TRACKING_URI", "RAY_ADDRESS"}}
    environ |= {
        "LLM_TUTORS_HOME": str(folder / ".home"),
        "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        shlex.split(step.command), cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    shown = tidy(done.stdout, folder)
    if done.returncode:
        raise RuntimeError(f"{step.command} ended with status {done.returncode}:\n{shown}")
    return f"{step.words}\n\n```console\n$ {step.command}\n{shown}\n```\n"


def main() -> None:
    """Record all steps and write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="first-steps-") as name:
        folder = Path(name)
        parts = []
        for step in STEPS:
            print(f"$ {step.command}", flush=True)
            if "answers.jsonl" in step.command and not (folder / "answers.jsonl").exists():
                sys.path.insert(0, name)
                from maze import Maze  # type: ignore[import-not-found]

                lines = (json.dumps(row) + "\n" for row in answers(Maze.rules, Maze.actions))
                (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
            parts.append(record(step, folder))
    PAGE.write_text(INTRODUCTION + "\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
