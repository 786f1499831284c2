"""Write the reference of fields and metrics, ``docs/fields.md``, from the configurations themselves.

    .venv/bin/python -m tools.fields

A test holds the page to what this program would write.
"""

from __future__ import annotations

import argparse
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rllib_plugins import metrics
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.reuse import make_reuse, reuse_names
from rllib_plugins.advising.rules import make_rule, rule_names
from rllib_plugins.stand_ins.registry import make_stand_in, stand_in_names
from rllib_plugins.uses.options import make_use, use_names
from tools.bootstrap import ROOT
from tune_sweeps.definition.config import Extension, Match, Override, SweepConfig
from tutor_service.config import TutorConfig

PAGE = Path(ROOT) / "docs" / "fields.md"
LINKS: dict[type[BaseModel], str] = {
    AdviceConfig: "[advice](#advice)",
    Match: "[cells](#cells)",
    Override: "[overrides](#overrides)",
    Extension: "[extensions](#extensions)",
}
"""Models with a table of their own; the fields of others stand by dotted names in the table of what holds them."""

KINDS = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", Path: "file", dict: "mapping"}

BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
"""Names that pydantic has for bounds, and ours."""

METRICS = {
    metrics.STEP_AXIS: "Env steps that the student has sampled: the axis of all others.",
    "return_mean": "Mean return of the latest training episodes.",
    "eval/return_mean": "Mean return of the greedy student, with the tutor off.",
    "eval/return_std": "Standard deviation of an episode's return in that evaluation.",
    "eval/time_share": "Share of the trial's time that evaluations took so far.",
    "env_steps_per_s": "Env steps per second of training, evaluations left out.",
    "updates": "Gradient steps, those on remembered advice included; total.",
    "advice/consultations": "Total. `coin`, `handover`: env steps on which advice was followed. Other uses: visited "
    "states that the tutor answered.",
    "advice/reused": "Of these, answered by what the trial had stored.",
    "advice/store_hits": "Of these, answered by a distribution that had been evaluated before.",
    "advice/model_evaluations": "Of these, for which the LLM was evaluated.",
    "advice/missed": "Questions without usable advice: the student went on by itself. Total.",
    "advice/invalid": "Answers that named no legal action. Total.",
    "advice/tokens": "Prompt and generated tokens that the LLM processed for this trial. Total.",
    "advice/agreement": "Share of the latest consultations in which the student did, or would have done, as advised.",
    "advice/probability": "P(τ): probability of a consultation now.",
    "advice/trust": "`coin`: factor on P(τ). `distil`: 1 while advice is imitated, less as that fades, else 0. "
    "`kickstart`, `shape`, `pool`, `handover`: share that is left of the tutor's part.",
    "advice/effect": "What advice is measured to gain over the student's own actions, in units of return.",
    "advice/effect_se": "Standard error of the effect.",
    "advice/latency_ms": "Milliseconds that the tutor took for one of the latest consultations.",
    "advice/stand_in": "Steps that a model of the advice answered in the tutor's place. Total.",
    "advice/stand_in_agreement": "How often that model had the tutor's guess of late, where it was sure.",
    "advice/stand_in_fitted_to": "Answers that it was fitted to last.",
    "advice/stand_in_stops": "How often it was given up.",
}
"""What each number of a trial says."""


def page() -> str:
    """Return the reference as Markdown."""
    parts = [
        "# Fields and metrics",
        "`python -m tools.fields` writes this page from the configurations. A dotted name is a field within a field: "
        "`--set\nevaluation.interval_steps=500` on the command line, `evaluation: {interval_steps: 500}` in a file.",
        "## A sweep",
        "The file of a sweep or preset ([sweeps.md](sweeps.md)); `tutor sweep --set` changes any of these.",
        table(SweepConfig),
        "### Cells",
        "Selects the cells whose values are listed, on every axis that is named. A single value needs no brackets.",
        table(Match),
        "### Overrides",
        table(Override),
        "### Extensions",
        table(Extension),
        "## Advice",
        "Part of a sweep, under `advice:`. How it works: [exploration.md](exploration.md).",
        table(AdviceConfig, "advice."),
        "### Options of a use",
        "`advice.use` names it, `advice.use_options` sets these.",
        options(use_names(), lambda name: make_use(name, {})),
        "### Options of an advising rule",
        "`advice.rule` names it, `advice.rule_options` sets these.",
        options(rule_names(), lambda name: make_rule(name, {})),
        "### Options of a reuse rule",
        "`advice.reuse` names it, `advice.reuse_options` sets these.",
        options(reuse_names(), lambda name: make_reuse(name, {})),
        "### Options of a stand-in",
        "`advice.stand_in` names it, `advice.stand_in_options` sets these.",
        options(stand_in_names(), lambda name: make_stand_in(name, {})),
        "## A tutor",
        "The file of a tutor ([tutors.md](tutors.md)). Without `name`, the file's name is the tutor's, in small "
        "letters. Where a tutor is named, a scripted\nreference "
        "may stand: `none`, `oracle`, `random`, `worst` or `oracle+random:SHARE` "
        "([advice.md](advice.md#references-without-an-llm)).",
        table(TutorConfig),
        "## Metrics",
        "What a trial reports to Tune and MLflow.",
        rows(("metric", "what it says"), ((f"`{name}`", METRICS[name]) for name in (metrics.STEP_AXIS, *metrics.ALL))),
    ]
    return "\n\n".join(parts) + "\n"


def table(model: type[BaseModel], prefix: str = "") -> str:
    """Return a table of a model's fields, those of nested models included.

    Args:
        model: The configuration.
        prefix: Put before each field's name.
    """
    shown = ((f"`{name}`", kind(field), default(field), field.description) for name, field in walk(model, prefix))
    return rows(("field", "type", "default", "what it does"), shown)


def options(names: Iterable[str], make: Callable[[str], BaseModel]) -> str:
    """Return a table of what may be chosen by name, and of the options of each."""
    found: list[tuple[str | None, ...]] = []
    for name in names:
        made = make(name)
        found.append((f"**`{name}`**", "", "", "", (inspect.getdoc(made) or "").split("\n\n")[0].replace("\n", " ")))
        found += [("", f"`{key}`", kind(field), default(field), field.description) for key, field in walk(type(made))]
    return rows(("name", "option", "type", "default", "what it does"), found)


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of a model by dotted name; a nested model's in its place, unless it has a table of its own."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if inspect.isclass(inner) and issubclass(inner, BaseModel) and inner not in LINKS:
            yield from walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def kind(field: FieldInfo) -> str:
    """Say what a field takes, in words."""
    said = [f"{words} {getattr(item, key):g}" for key, words in BOUNDS for item in field.metadata if hasattr(item, key)]
    return ", ".join([_kind(field.annotation), *said])


def _kind(annotation: Any) -> str:
    if annotation in LINKS:
        return LINKS[annotation]
    if annotation in KINDS:
        return KINDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(item) for item in inner if item is not type(None))
    if origin is list:
        of = _kind(inner[0])
        return f"list of {of}" if of not in ("integer", "text", "number", "file") else f"list of {of}s"
    return KINDS[origin]


def default(field: FieldInfo) -> str:
    """Return a field's default as a sweep's or a tutor's file would have it."""
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "depends"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ("", [], {}) or isinstance(value, BaseModel):
        return "–"
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1 else f"{value:g}"
    if isinstance(value, list):
        if len(value) > 3 and value == list(range(value[0], value[-1] + 1)):
            return f"{value[0]} … {value[-1]}"
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


def rows(header: tuple[str, ...], content: Iterable[tuple[str | None, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, ("---",) * len(header), *content]
    return "\n".join("| " + " | ".join(_cell(cell or "") for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|").replace("<", "\\<")


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
