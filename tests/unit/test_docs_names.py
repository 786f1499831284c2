"""Every path, dotted name, field and anchor that the pages name is there."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tools import fields
from tune_sweeps.definition.config import SweepConfig
from tutor_service.config import TutorConfig

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = [name for name in TRACKED if name.endswith(".md")]
COMMENTED = [name for name in TRACKED if re.match(r"(tune_sweeps/presets|tutor_service/catalog|deploy)/.*ya?ml$", name)]
PACKAGES = ("tutor_service", "rllib_plugins", "tune_sweeps", "benchmarks", "tools", "examples")
FOLDERS = (*PACKAGES, "deploy", "docs", "tests")
CODE = (".py", ".sh", ".sbatch", ".toml")

FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")
QUOTED = re.compile(r"`([^`]+)`")
DOTTED = re.compile(rf"(?<![\w./-])({'|'.join(PACKAGES)})((?:\.\w+)+)(?::(\w+))?(?![\w/])")
MEMBER = re.compile(r"^([A-Z]\w+)\.([a-z_]\w*)\b")
FIELD = re.compile(r"^((?:advice|evaluation|resources|failures|convergence|statistics|scaling|budget)(?:\.[a-z_]+)+)\b")


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return frozenset(slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE))


def wrong_links(page: Path, text: str) -> list[str]:
    """Links to files and anchors that are not there."""
    found = []
    for link in LINK.findall(FENCED.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def wrong_paths(page: Path, text: str) -> list[str]:
    """Paths in backticks that are not there: those within the repository's folders, and files of code by their end."""
    found = []
    for quoted in QUOTED.findall(FENCED.sub("", text)):
        path = quoted.rstrip("/")
        is_ours = path.endswith(CODE) or path.startswith(tuple(f"{folder}/" for folder in FOLDERS))
        if not is_ours or not re.fullmatch(r"[\w.*/-]+", path):
            continue
        pattern = path.removeprefix("./").replace("../", "").replace("NAME", "*")
        ends = (pattern, f"*/{pattern}", f"{pattern}/*", f"*/{pattern}/*")
        if not any(fnmatch.filter(TRACKED, end) for end in ends):
            found.append(quoted)
    return found


@cache
def names_of(module: Path) -> frozenset[str]:
    """What a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def exists(package: str, rest: str, attribute: str) -> bool:
    """Whether a dotted name leads to a module, or to what a module holds."""
    place, parts = ROOT / package, rest.strip(".").split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    module = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").exists():
        module = place / f"{parts.pop(0)}.py"
    wanted = [*parts[:1], *filter(None, [attribute])]
    return module.exists() and set(wanted) <= names_of(module) if wanted else module.exists() or place.is_dir()


def wrong_names(text: str) -> list[str]:
    """Dotted names of modules and what they hold that are not there."""
    found = []
    for match in DOTTED.finditer(text):
        package, rest, attribute = match.groups()
        if "NAME" not in rest and not rest.endswith((".py", ".md", ".json")) and not exists(package, rest, attribute):
            found.append(match[0])
    return found


@cache
def members() -> dict[str, set[str]]:
    """By each class of ours without foreign bases, what it and its bases define."""
    classes: dict[str, ast.ClassDef] = {}
    for name in TRACKED:
        if name.startswith(PACKAGES) and name.endswith(".py"):
            tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
            classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def of(name: str) -> set[str]:
        if name not in classes:
            return set()
        inside = list(ast.walk(classes[name]))
        found = {node.name for node in inside if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        found |= {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        found |= {node.attr for node in inside if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        return found.union(*(of(base.id) for base in classes[name].bases if isinstance(base, ast.Name)))

    def is_whole(name: str) -> bool:
        bases = {base.id if isinstance(base, ast.Name) else "" for base in classes[name].bases}
        return all(base in classes and is_whole(base) for base in bases - {"BaseModel", "NamedTuple"})

    return {name: of(name) for name in classes if is_whole(name)}


def wrong_members(text: str) -> list[str]:
    """Methods and fields in backticks, as ``Class.member``, that a class of ours does not have."""
    found = []
    for quoted in QUOTED.findall(FENCED.sub("", text)):
        match = MEMBER.match(quoted)
        if match and match[1] in members() and match[2] not in members()[match[1]]:
            found.append(quoted)
    return found


KNOWN = {name for model in (SweepConfig, TutorConfig) for name, _ in fields.walk(model)} | {
    name for name, _ in fields.walk(fields.AdviceConfig, "advice.")
}


def wrong_fields(text: str) -> list[str]:
    """Fields of sweeps and tutors, by dotted names in backticks, that are not there."""
    found = []
    for quoted in QUOTED.findall(FENCED.sub("", text)):
        match = FIELD.match(quoted)
        if match and not match[1].endswith((".jsonl", ".md", ".parquet", ".yaml")):
            name = re.sub(r"(_options)\..*", r"\1", match[1])
            if name not in KNOWN:
                found.append(quoted)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name: str) -> None:
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    assert wrong_links(page, text) == []
    assert wrong_paths(page, text) == []
    assert wrong_names(text) == []
    assert wrong_fields(text) == []
    assert wrong_members(text) == []


@pytest.mark.parametrize("name", COMMENTED)
def test_what_comments_of_shipped_files_name_is_there(name: str) -> None:
    comments = "\n".join(re.findall(r"#.*$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert wrong_names(comments) == []


def test_what_is_not_there_is_found() -> None:
    page = ROOT / "docs" / "sweeps.md"
    assert wrong_links(page, "[a](tasks.md#nowhere) [b](nothing.md) [c](tasks.md#the-games)") == [
        "tasks.md#nowhere",
        "nothing.md",
    ]
    assert wrong_paths(page, "`rllib_plugins/nothing` `uses/base.py` `_profile.py` `algorithms/NAME/NAME.py`") == [
        "rllib_plugins/nothing",
        "_profile.py",
    ]
    assert wrong_names("rllib_plugins.config.PAPER_ADVICE, rllib_plugins.advising.config.PAPER_ADVICE") == [
        "rllib_plugins.config.PAPER_ADVICE"
    ]
    assert wrong_fields("`advice.use: coin`, `advice.use_options.until`, `scaling.gateway`") == ["scaling.gateway"]
    assert wrong_members("`Task.trivial_players()` `Task.nothing` `PPO.train` `numpy.load`") == ["Task.nothing"]
