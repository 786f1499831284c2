"""Every `tutor` command that the docs show is one that the command line takes, options included."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tune_sweeps.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Page and command of each line in a fenced block that begins with ``tutor``."""
    found = []
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if line.strip().startswith("tutor ")]
    return found


def test_the_docs_show_commands() -> None:
    assert len(commands()) > 20


def test_what_the_command_line_does_not_take_is_found() -> None:
    with pytest.raises(Exception, match="--bogus"):
        test_a_command_of_the_docs_is_taken("page", "tutor sweep demo --bogus")
    with pytest.raises(KeyError, match="swep"):
        test_a_command_of_the_docs_is_taken("page", "tutor swep demo")


@pytest.mark.parametrize(("page", "line"), commands(), ids=[line for _, line in commands()])
def test_a_command_of_the_docs_is_taken(page: str, line: str) -> None:
    command: Any = typer.main.get_command(app)
    name, *arguments = shlex.split(line, comments=True)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        command = command.commands[name]
    if not {"--help", "-h"} & set(arguments):
        command.make_context(name, arguments)
