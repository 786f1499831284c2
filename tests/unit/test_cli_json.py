"""Every command that prints a table prints JSON for a program: each is run, and a new one without ``--json`` fails."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from rllib_plugins.tasks import load_task
from tests.unit.test_deploy_submit import TOKEN, served
from tests.unit.test_sweeps_report import record, run, two_to_one
from tune_sweeps.cli import app as cli
from tune_sweeps.cluster.jobs import SWEEP_KEY
from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Entry

Arrange = Callable[[Path, pytest.MonkeyPatch], list[str]]


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command by the words that call it."""
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        yield from commands(command, words) if hasattr(command, "commands") else [(words, command)]


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def prints_a_table(command: Any) -> bool:
    """Say whether the code of a command, with what it calls in its own module, makes rows or columns."""
    function = inspect.unwrap(command.callback)
    return _makes_rows(ast.parse(textwrap.dedent(inspect.getsource(function))), sys.modules[function.__module__], set())


def _makes_rows(code: ast.AST, module: ModuleType, seen: set[str]) -> bool:
    for node in ast.walk(code):
        if isinstance(node, ast.FormattedValue) and node.format_spec and {*"<>"} & {*ast.unparse(node.format_spec)}:
            return True  # columns by hand
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if re.search(r"(^|_)[tT]able$", name) or name in {"print_rows", "estimate_lines", "show"}:
            return True
        called = vars(module).get(name) if isinstance(node, ast.Name) else None
        if inspect.isfunction(called) and called.__module__ == module.__name__ and name not in seen:
            seen.add(name)
            if _makes_rows(ast.parse(textwrap.dedent(inspect.getsource(called))), module, seen):
                return True
    return False


def recorded(here: Path, _: pytest.MonkeyPatch) -> str:
    """Write a tutor's answers to all of FrozenLake's states."""
    task = load_task("examples.frozen_lake:FrozenLakeTask")
    rows = [
        {
            "rules": task.rules,
            "state": task.describe(state),
            "actions": task.actions,
            "probabilities": [0.1, 0.2, 0.6, 0.1],
        }
        for state in range(16)
    ]
    (here / "answers.jsonl").write_text("".join(json.dumps(row | {"legal_mass": 1.0}) + "\n" for row in rows))
    return "answers.jsonl"


def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_sweeps.tracking.mlflow_client.check_uri", lambda uri: None)
    monkeypatch.setattr("tune_sweeps.tracking.single_run.log_run", lambda *_: None)


def graded(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    without_mlflow(monkeypatch)
    return ["oracle", "blackjack"]


def auditioned(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    without_mlflow(monkeypatch)
    ways = ["--set", "advice=best", "--set", "calibration=none", "--episodes", "4"]
    return [recorded(here, monkeypatch), "examples.frozen_lake:FrozenLakeTask", *ways]


def compared(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    without_mlflow(monkeypatch)
    runs = [run(tutor, seed, 4_000 + 100 * seed) for tutor in ("none", "oracle") for seed in range(3)]
    monkeypatch.setattr("tune_sweeps.tracking.reader.read_sweep", lambda uri, name: record(runs))
    return ["a", "b"]


def reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    without_mlflow(monkeypatch)
    monkeypatch.setattr("tune_sweeps.report.build.make_report", lambda *_, **__: (two_to_one(), [here / "report.md"]))
    return ["a"]


def stored(here: Path, _: pytest.MonkeyPatch) -> list[str]:
    advice = Advice((0.5, 0.5), legal_mass=1.0)
    with AdviceStore(here / "home" / "advice" / "mine") as store:
        store.put_many([Entry(b"k" * 32, advice)])
    return []


def trained(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    def train(student: Any, on_result: Callable[[dict[str, Any]], None]) -> None:
        for steps in (100, 200):
            found = {"num_env_steps_sampled_lifetime": steps, "eval/return_mean": 0.5, "return_mean": float("nan")}
            on_result(found)

    monkeypatch.setattr("rllib_plugins.trial.train", train)
    return ["ppo", "blackjack", "--tutor", "oracle"]


def jobs(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    return ["--address", "DASHBOARD"]


RUNS: dict[str, tuple[Arrange, Callable[[Any], bool]]] = {
    "tutors": (lambda *_: [], lambda found: {"tutor", "backend", "model", "licence", "what_it_is"} == set(found[0])),
    "tasks": (
        lambda *_: [],
        lambda found: [row["env_steps"] for row in found if row["task"] == "blackjack"] == [40_000],
    ),
    "presets": (lambda *_: [], lambda found: "demo" in [row["preset"] for row in found]),
    "doctor": (lambda *_: [], lambda found: {"part", "state", "found", "remedy"} == set(found[0])),
    "ask": (lambda *_: ["oracle", "blackjack"], lambda found: sum(found["probability"].values()) == 1),
    "sweep": (lambda *_: ["demo", "--dry-run"], lambda found: found["num_trials"] == 45 and len(found["cells"]) == 3),
    "grade": (graded, lambda found: found["tutor"] == "oracle" and found["task"] == "blackjack"),
    "audition": (auditioned, lambda found: found["task"] == "frozen_lake" and len(found["ways"]) == 1),
    "compare": (compared, lambda found: [found["first"], found["second"], len(found["cells"])] == ["a", "b", 2]),
    "report": (reported, lambda found: found["files"][0].endswith("report.md")),
    "train": (
        trained,
        lambda found: [(row["env_steps"], row["return"]) for row in found] == [(100, None), (200, None)],
    ),
    "store stats": (stored, lambda found: [(row["tutor"], row["answers"]) for row in found] == [("mine", 1)]),
    "jobs list": (jobs, lambda found: [(row["sweep"], row["status"]) for row in found] == [("night", "running")]),
}
"""How each is called where it has something to print, and what its JSON then holds."""


def test_tables_are_recognised() -> None:
    found = {name for name, command in COMMANDS.items() if prints_a_table(command)}
    assert found >= {"tutors", "sweep", "train", "jobs list", "store stats", "audition", "report"}
    assert not found & {"ui", "serve", "init", "submit", "play", "store export"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_prints_a_table_prints_json(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has_json = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert has_json == prints_a_table(COMMANDS[name])
    if not has_json:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    for variable in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    arrange, holds = RUNS[name]
    job = {
        "type": "SUBMISSION",
        "submission_id": "night-1",
        "entrypoint": "tutor",
        "status": "RUNNING",
        "start_time": 1,
    }
    listed = [job | {"metadata": {SWEEP_KEY: "night"}}]
    with served(**{"/api/jobs/": listed}) as dashboard:
        arguments = [dashboard if word == "DASHBOARD" else word for word in arrange(tmp_path, monkeypatch)]
        monkeypatch.setattr(sys, "argv", ["tutor", *name.split(), *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    assert holds(json.loads(capsys.readouterr().out, parse_constant=pytest.fail))
