"""Find what makes a tutor's prompts: its tokenizer and the builder that fits its engine. Starts nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tutor_service.config import TutorConfig
from tutor_service.engines import models
from tutor_service.errors import UserError
from tutor_service.prompts.chat import ChatPrompts
from tutor_service.prompts.chat_templates import read_template
from tutor_service.prompts.messages import MessagePrompts
from tutor_service.prompts.orders import OrderedPrompts
from tutor_service.prompts.prompt import Decoding, PromptBuilder


def load_tokenizer(config: TutorConfig) -> Any:
    """Return the tokenizer of a tutor that we host; None for an endpoint, which keeps it to itself."""
    if config.backend == "openai":
        return None
    location = str(config.engine.get("tokenizer") or models.locate(config))
    if models.is_local(location):
        os.environ["HF_HUB_OFFLINE"] = "1"
        if _is_plain(Path(location)):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(location)
    from transformers import AutoTokenizer

    revision = config.engine.get("tokenizer_revision", config.revision)
    trusted = config.engine.get("trust_remote_code")
    return AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=trusted)


def _is_plain(folder: Path) -> bool:
    """Return whether a folder's tokenizer needs no model's code, and so not torch, which loads slowly."""
    try:
        described = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        plain = described.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
    except (OSError, ValueError, AttributeError):
        return False
    return plain and "auto_map" not in described and (folder / "tokenizer.json").is_file()


def make_builder(config: TutorConfig, decoding: Decoding, tokenizer: Any) -> PromptBuilder:
    """Return the prompt builder that fits an engine.

    Raises:
        UserError: The tokenizer has no chat template, or the tutor's does not fit.
    """
    builder: PromptBuilder
    if tokenizer is None:
        builder = MessagePrompts(decoding)
    else:
        template = read_template(config.chat_template) if config.chat_template else None
        builder = ChatPrompts(tokenizer, decoding, template, config.template_arguments)
    return builder if config.label_orders == 1 else OrderedPrompts(builder, config.label_orders)


def check_briefing(config: TutorConfig, builder: PromptBuilder, limit: int | None) -> None:
    """Refuse notes of the user's that leave no tokens for rules and state.

    Raises:
        UserError: They are too long.
    """
    if config.briefing in ("none", "self") or limit is None:
        return
    tokens = len(builder.plain(config.briefing).token_ids)
    if tokens >= limit:
        raise UserError(
            f"tutor '{config.name}': briefing has {tokens} tokens; the tutor's context leaves {limit} for rules, notes "
            "and state together. Shorten the notes or raise engine.max_model_len."
        )
