"""The reference of fields and metrics is what the configurations say."""

from __future__ import annotations

from rllib_plugins import metrics
from tools import fields


def test_the_page_is_what_the_program_writes() -> None:
    assert fields.PAGE.read_text(encoding="utf-8") == fields.page(), "run: python -m tools.fields"


def test_every_metric_is_described() -> None:
    assert set(fields.METRICS) == {metrics.STEP_AXIS, *metrics.ALL}


def test_fields_are_shown_with_type_and_default() -> None:
    text = fields.page()
    assert "| `scaling.gateways` | integer, at least 1, at most 64 | `1` |" in text
    assert "| `decoding` | `scored`, `reasoned`, `text` | `scored` |" in text
    assert "| **`distil`** |" in text and "| `tuning_seeds` | list of integers | `100 … 119` |" in text
