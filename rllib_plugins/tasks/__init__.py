"""Tasks: environments in words."""

from __future__ import annotations

from rllib_plugins.tasks.base import Policy, Task
from rllib_plugins.tasks.registry import load_task, register_task, task_names

__all__ = ["Policy", "Task", "load_task", "register_task", "task_names"]
