"""Write commented starts of a user's own tasks, tutors, sweeps and rules, and check that they work."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import NamedTuple

from rllib_plugins.advising.rules import make_rule
from rllib_plugins.tasks import load_task
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.definition.resolve import resolve
from tutor_service.errors import UserError, unknown_name
from tutor_service.tutor_files import load_tutor

SCAFFOLDS = Path(__file__).parent.parent / "scaffolds"


class Kind(NamedTuple):
    """What a start consists of.

    Attributes:
        files: By the file to write, the template.
        check: Loads what was written, by its module and class or its file; raises where that does not work.
        next: The command to go on with.
    """

    files: dict[str, str]
    check: Callable[[str], object]
    next: str


KINDS = {
    "task": Kind(
        {"$name.py": "task.py.txt", "test_$name.py": "task_test.py.txt"}, load_task, "tutor grade oracle $name:$class"
    ),
    "tutor": Kind({"$name.yaml": "tutor.yaml.txt"}, load_tutor, "tutor ask $file blackjack"),
    "sweep": Kind(
        {"$name.yaml": "sweep.yaml.txt"}, lambda file: resolve(load_sweep(file)), "tutor sweep $file --dry-run"
    ),
    "rule": Kind(
        {"$name.py": "rule.py.txt", "test_$name.py": "rule_test.py.txt"},
        lambda entry: make_rule(entry, {}),
        "tutor sweep small --dry-run --set advice.use=coin --set advice.rule=$name:$class",
    ),
}


class Written(NamedTuple):
    """What was written.

    Attributes:
        files: The files.
        next: The command to go on with.
    """

    files: list[Path]
    next: str


def write_start(kind: str, name: str) -> Written:
    """Write the start of a kind into the working directory, and load it as a sweep will.

    Args:
        kind: task, tutor, sweep or rule.
        name: A Python module's name for a task or rule, a file's name for the others.

    Raises:
        UserError: No such kind, a name that cannot be one, or a file that exists; nothing is written.
    """
    if kind not in KINDS:
        raise unknown_name("start", kind, KINDS)
    is_code = kind in {"task", "rule"}
    _check_name(kind, name, is_code)
    words = {"name": name, "class": _class_name(name), "file": f"{name}.yaml"}
    found = KINDS[kind]
    texts = {
        Path(Template(file).substitute(words)): Template((SCAFFOLDS / source).read_text(encoding="utf-8")).substitute(
            words
        )
        for file, source in found.files.items()
    }
    there = [str(path) for path in texts if path.exists()]
    if there:
        raise UserError(f"there already: {', '.join(there)}. Give another name, or remove that.")
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"'{path}' cannot be written here ({error.strerror}).") from error
    found.check("{name}:{class}".format(**words) if is_code else words["file"])
    return Written(list(texts), Template(found.next).substitute(words))


def _check_name(kind: str, name: str, is_code: bool) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*" if is_code else r"[a-z][a-z0-9_-]*", name) or keyword.iskeyword(name):
        raise UserError(f"'{name}' is no name for a {kind}: small letters, digits and '_', beginning with a letter.")
    if is_code and not Path(f"{name}.py").exists() and importlib.util.find_spec(name) is not None:
        raise UserError(f"'{name}' is the name of a Python module that is installed already. Give another.")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[_-]", name))
