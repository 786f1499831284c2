"""What users write in YAML means what it looks like, and a file that cannot be read is named with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.errors import UserError
from tutor_service.yaml_files import name_of, parse_yaml, read_fields, write_yaml

TEXTS = st.text("0123456789eE+-.:#_ ~ny'é", max_size=8)
SCALARS = TEXTS | st.none() | st.booleans() | st.floats(allow_nan=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3E5", 3e5), ("-2.5e+3", -2.5e3), (".5e1", 5.0), ("1e", "1e"), ("e5", "e5"), ("1-e4", "1-e4")],
)
def test_a_number_with_an_exponent_is_a_number(text: str, value: object) -> None:
    assert parse_yaml(text) == value and type(parse_yaml(text)) is type(value)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="'seeds' stands there twice"):
        parse_yaml("{seeds: 1, tasks: [a], seeds: 2}")
    assert parse_yaml("{a: {x: 1}, b: {x: 1}}") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_mapping_may_be_merged_wherever_it_stands() -> None:
    text = """
a: {inner: &base {x: 1, y: 2}}
b: {inner: {deeper: &more {<<: *base, x: 3}}}
c: {<<: *more, z: 4}
"""
    assert parse_yaml(text)["b"]["inner"]["deeper"] == {"x": 3, "y": 2}
    assert parse_yaml(text)["c"] == {"x": 3, "y": 2, "z": 4}


@pytest.mark.parametrize("text", ["2026-13-01", "!!int x", "!!timestamp x", "!!float x"])
def test_a_value_that_is_none_of_its_kind_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="line 2, column 4"):
        parse_yaml(f"a: 1\nb: {text}")


@given(st.dictionaries(TEXTS, SCALARS, max_size=4))
def test_what_is_written_reads_back_as_the_same(fields: dict[str, object]) -> None:
    assert parse_yaml(write_yaml(fields)) == fields


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist. Give another"),
        ("folder", "is a folder. Give another"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"a: [1", "not valid YAML"),
        (b"- 1", "must hold a mapping of fields, e.g. 'a: 1'"),
        (b"", "must hold a mapping"),
        (b"1: 2", "a field named 1,"),
        (b"yes: 2", "a field named True,"),
        (b"a: 2026-13-01", "not valid YAML: '2026-13-01' is no value"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, content: bytes | str | None, words: str
) -> None:
    file = tmp_path / "mine.yaml"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"^tutor file '{file}' .*{words}"):
        read_fields(file, "tutor", "a: 1", "Give another.")


@pytest.mark.parametrize(
    ("file", "name"),
    [("My tutor.yaml", "My-tutor"), ("Ünï (2).YML", "Uni-2"), ("-x_1.5.yaml", "x_1.5"), ("师.yaml", "")],
)
def test_a_file_gives_its_name_to_what_it_describes(file: str, name: str) -> None:
    assert name_of(Path(file)) == name
