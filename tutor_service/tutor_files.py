"""Read a tutor by catalog name, from a YAML file, or as a file of recorded answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, field_problems, unknown_name
from tutor_service.yaml_files import is_yaml, name_of, read_fields

CATALOG_DIR = Path(__file__).parent / "catalog"
NOTES_SUFFIXES = (".txt", ".md")
ANSWER_SUFFIXES = (".jsonl", ".parquet")
"""Files of exported answers, each of which is a recorded tutor by itself."""


def catalog_names() -> list[str]:
    """Return the names of the tutors that ship."""
    return sorted(path.stem for path in CATALOG_DIR.glob("*.yaml"))


def load_tutor(name_or_path: str) -> TutorConfig:
    """Read a tutor by catalog name, from a user's YAML file, or as a file of recorded answers.

    Raises:
        UserError: No such name or file, broken YAML, or an invalid field (named, with its value).
    """
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in ANSWER_SUFFIXES:
        return _recorded(path)
    if not is_yaml(path):
        path = CATALOG_DIR / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("tutor", name_or_path, catalog_names())
    fields = read_fields(path, "tutor", "name: mytutor", "Give a catalog name or the path of a YAML file.")
    try:
        tutor = TutorConfig(**{"name": _name(path, "tutor"), **fields})
    except ValidationError as error:
        raise UserError(f"tutor file '{path}': {field_problems(error, TutorConfig)}") from error
    update: dict[str, Any] = {"briefing": _notes(tutor, path.parent)}
    if tutor.file is not None:
        update["file"] = (path.parent / tutor.file.expanduser()).resolve()
    return tutor.model_copy(update=update)


def _notes(tutor: TutorConfig, folder: Path) -> str:
    """Return the briefing, the text of its file where it names one."""
    said = tutor.briefing.strip()
    if "\n" in said or not said.endswith(NOTES_SUFFIXES):
        return said
    path = folder / Path(said).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"tutor '{tutor.name}': briefing = '{said}': {path} cannot be read ({error}). Give the notes themselves, "
            "the path of a text file, 'self' or 'none'."
        ) from error
    if not text:
        raise UserError(
            f"tutor '{tutor.name}': briefing = '{said}': {path} is empty. Write notes into it, or say 'none'."
        )
    return text


def is_tutor_file(entry: str) -> bool:
    """Return whether a tutor is named by a file of the user's, and not by its catalog name."""
    return is_yaml(entry) or entry.lower().endswith(ANSWER_SUFFIXES)


def _name(path: Path, default: str) -> str:
    """Return the name of a tutor whose file says none."""
    return name_of(path).lower() or default


def _recorded(path: Path) -> TutorConfig:
    """Make the tutor that a file of answers is."""
    if not path.is_file():
        raise UserError(f"file of answers '{path}' does not exist. `tutor store export` writes one.")
    return TutorConfig(
        name=_name(path, "recorded"),
        description=f"answers recorded in {path.name}",
        backend="recorded",
        file=path.resolve(),
    )
