"""Find a tutor's chat template and split it around the user's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutor_service.errors import UserError
from tutor_service.tutor_files import CATALOG_DIR

_MARK = "3f9c2b7e-the-question-goes-here"
_TODAY = "26 Jul 2024"


def read_template(name_or_path: str) -> str:
    """Return the source of a chat template, by its name in ``catalog/templates`` or by path.

    Raises:
        UserError: No such template.
    """
    shipped = CATALOG_DIR / "templates" / f"{name_or_path.removesuffix('.jinja')}.jinja"
    for path in (shipped, Path(name_or_path).expanduser()):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    names = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.jinja")))
    raise UserError(f"chat_template = {name_or_path!r} is neither a file nor one of: {names}.")


def split_template(tokenizer: Any, template: str | None, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text around the user's words, with the tutor's turn opened.

    There is one turn of the user's and none of a system's, which some templates refuse. Templates that print today's
    date get a fixed one: the same state must give the same prompt tomorrow.

    Args:
        tokenizer: A transformers tokenizer.
        template: Jinja source in place of the tokenizer's own.
        arguments: More arguments of the template, e.g. ``enable_thinking``.

    Raises:
        UserError: There is no template, it cannot be rendered, or it does not show the user's words once.
    """
    if template is None and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the tutor's tokenizer has no chat template. Set chat_template to one of catalog/templates "
            "(e.g. 'vicuna') or to the path of a Jinja file."
        )
    fixed = {"date_string": _TODAY, "strftime_now": lambda pattern: _TODAY}
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=template,
            **(fixed | dict(arguments)),
        )
    except Exception as error:  # whatever Jinja and the template raise
        raise UserError(
            f"the chat template cannot be rendered with template_arguments = {dict(arguments)}: {error}"
        ) from error
    if rendered.count(_MARK) != 1:
        raise UserError(f"the chat template shows the user's words {rendered.count(_MARK)} times; once is needed.")
    opening, closing = rendered.split(_MARK)
    return opening, closing
