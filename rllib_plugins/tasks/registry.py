"""Find tasks by name, or in a user's own module."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from rllib_plugins.importing import import_from_here
from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.gymnasium_check import failure
from rllib_plugins.tasks.validation import validate
from tutor_service.errors import UserError, unknown_name

_BUILT_IN = {
    "blackjack": "rllib_plugins.tasks.blackjack:BlackjackTask",
    "cart_pole": "rllib_plugins.tasks.cart_pole:CartPoleTask",
    "connect_four": "rllib_plugins.tasks.connect_four:ConnectFourTask",
    "snake": "rllib_plugins.tasks.snake:SnakeTask",
}
_registered: dict[str, Callable[..., Task]] = {}
_made: dict[tuple[Any, str], Task] = {}
"""Tasks of this process by source and options: checks and environments are shared by all that use one."""


def task_names() -> list[str]:
    """Return the names of the tasks that ship and of those that were registered."""
    return sorted({*_BUILT_IN, *_registered})


def register_task(task: Callable[..., Task], name: str | None = None) -> Callable[..., Task]:
    """Add a task under its name, after checking it; usable as a class decorator.

    Args:
        task: A subclass of Task, or a function that returns one.
        name: Name to register under; by default the task's own.

    Raises:
        UserError: The task cannot be used (see ``validate``), or the name is taken by another one.
    """
    checked = _build(task, {}, getattr(task, "__name__", str(task)))
    validate(checked)
    name = name or checked.name
    if name in _BUILT_IN or _registered.get(name, task) is not task:
        raise UserError(f"task name '{name}' is taken. Give the task another name.")
    _registered[name] = task
    return task


def load_task(name: str, **options: Any) -> Task:
    """Make a task; the same one for the same name and options.

    Example:
        >>> load_task("snake", size=8).num_actions
        3

    Args:
        name: A registered name, or ``module:object`` where the object is a Task, a subclass of it, or a function that
            returns one. The module is looked for in the working directory too.
        **options: Keyword arguments of the task.

    Raises:
        UserError: No such task (the nearest spelling and the list are shown), a module that cannot be imported,
            unknown options, or a user's task that fails its checks.
    """
    if name not in _registered and name not in _BUILT_IN and ":" not in name:
        raise unknown_name("task", name, task_names())
    with redirect_stdout(sys.stderr):  # what a user's module or simulator says is no part of what a command prints
        return _load(name, options)


def _load(name: str, options: dict[str, Any]) -> Task:
    source = _registered.get(name) or _import(_BUILT_IN.get(name, name))
    key = (source, json.dumps(options, sort_keys=True, default=repr))
    if key not in _made:
        task = _build(source, options, name)
        if name not in _registered and name not in _BUILT_IN:
            validate(task)
        _made[key] = task
    return _made[key]


def _build(source: Any, options: dict[str, Any], name: str) -> Task:
    if isinstance(source, Task):
        if options:
            raise UserError(f"task '{name}' is an object, not a class: it takes no options, got {options}.")
        return source
    if not callable(source):
        raise UserError(f"task '{name}' is a {type(source).__name__}. It must be a rllib_plugins.tasks.Task.")
    try:
        task = source(**options)
    except TypeError as error:
        raise UserError(f"task '{name}' with options {options}: {error}") from error
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"task '{name}' with options {options}: its constructor fails with {failure(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task '{name}' made a {type(task).__name__}. It must make a rllib_plugins.tasks.Task.")
    return task


def _import(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = import_from_here(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"task '{path}': no module '{error.name}'. Run from the folder that holds it, or install it."
        ) from error
    except ImportError as error:
        raise UserError(f"task '{path}': {error}") from error
    if not hasattr(module, attribute):
        names = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Task)]
        raise unknown_name("task", attribute, [key for key in names if key != "Task"], f"in module '{module_name}'")
    return getattr(module, attribute)
