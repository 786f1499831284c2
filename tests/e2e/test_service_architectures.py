"""Random weights of other architectures: the distribution is the model's, whatever the model and the template."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.reference import NOT_SPECIAL, RECREATED, SPECIAL, distributions, make_checkpoint, total_variation
from tutor_service.config import TutorConfig
from tutor_service.engines.thinking import CUE
from tutor_service.engines.vllm import VllmEngine
from tutor_service.prompts.chat import ChatPrompts
from tutor_service.prompts.chat_templates import read_template
from tutor_service.prompts.prompt import BLOCK, Decoding, Prompt, prefix_length
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.tutor_files import CATALOG_DIR

RULES = "Some rules."
DEEPSEEK = str(RECREATED / "deepseek_r1.jinja")
TEMPLATES = (
    None,
    *(path.stem for path in sorted((CATALOG_DIR / "templates").glob("*.jinja"))),
    *(str(path) for path in sorted(RECREATED.glob("*.jinja"))),
)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def checkpoint(request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(request.param, model_folder, tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def questions(tokenizer: Any, decoding: Decoding, template: str | None) -> list[Prompt]:
    """Prompts on one prefix: labels that are words, and labels that letters stand in for."""
    builder = ChatPrompts(tokenizer, decoding, template and read_template(template))
    labels = (("stick", "hit"), ("go up", "go down", "wait"))
    return [builder.build(AdviceRequest(RULES, f"State {n}.", actions)) for n in range(2) for actions in labels]


def tutor(folder: Path, **fields: object) -> TutorConfig:
    return TutorConfig(name="tiny", model=str(folder), engine={"dtype": "float32", "max_model_len": 512}, **fields)


def check(folder: Path, prompts: Sequence[Prompt], *rounds: Sequence[object]) -> None:
    """Holds rounds of answers against transformers' own, which share no prefix and no cache."""
    spread = set()
    for (expected, mass), *answers in zip(distributions(folder, prompts), *rounds, strict=True):
        for answer in answers:
            assert isinstance(answer, Advice)
            assert total_variation(answer.probabilities, expected) < 1e-3
            assert answer.legal_mass == pytest.approx(mass, rel=1e-2, abs=1e-6)
        spread.add(round(expected[0], 3))
    assert len(spread) > len(prompts) // 2, "random weights that always say the same prove nothing"


def test_a_templates_arguments_reach_it(tokenizer: Any):
    template = read_template(str(RECREATED / "qwen3.jinja"))
    asked = AdviceRequest(RULES, "A state.", ("stick", "hit"))
    shown = {}
    for arguments in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        builder = ChatPrompts(tokenizer, "scored", template, arguments)
        shown[str(arguments)] = builder.show(builder.build(asked))
    assert shown["{}"] == shown["{'enable_thinking': True}"]
    assert shown["{'enable_thinking': False}"] == shown["{}"] + "<think>\n\n</think>\n\n"


async def test_scored_distributions_equal_those_of_transformers(checkpoint: Path, tokenizer: Any):
    prompts = []
    for template in TEMPLATES:
        asked = questions(tokenizer, "scored", template)
        assert prefix_length(asked) >= BLOCK
        prompts += asked
    engine = VllmEngine(tutor(checkpoint))
    try:
        await engine.start()
        answers = await engine.evaluate(prompts)
        cached = await engine.evaluate(prompts)
    finally:
        engine.shutdown()
    check(checkpoint, prompts, answers, cached)


async def test_a_reasoned_answer_is_the_models_after_its_thought(
    checkpoint: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    """Its last step is a scored question, whose prompt ends in the thought and the token that closes it."""
    opened, closed = (tokenizer.convert_tokens_to_ids(token) for token in ("<think>", "</think>"))
    prompts = questions(tokenizer, "reasoned", DEEPSEEK)
    engine = VllmEngine(tutor(checkpoint, decoding="reasoned", thinking_tokens=6))
    asked: list[Prompt] = []
    score = engine._score

    async def noted(items: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
        asked.extend(Prompt(tuple(ids), tuple(labels), ()) for ids, labels in items)
        return await score(items)

    try:
        await engine.start()
        monkeypatch.setattr(engine, "_score", noted)
        answers = [answer for prompt in prompts for answer in await engine.evaluate([prompt])]
    finally:
        engine.shutdown()
    for prompt, question in zip(prompts, asked, strict=True):
        start = len(prompt.token_ids)
        thought = question.token_ids[start:]
        assert question.token_ids[:start] == prompt.token_ids and prompt.token_ids.count(opened) == 1
        assert thought.index(closed) > 1, "no thought"
        assert tokenizer.decode(thought[thought.index(closed) :]) == f"</think>\n\n{CUE}"
    check(checkpoint, asked, answers)


async def test_many_states_at_once_are_answered_as_one_by_one(checkpoint: Path, tokenizer: Any):
    """More prompts than one step takes, some cut off and some not, beside scored questions and free text."""
    prompts = [prompt for _ in range(16) for prompt in questions(tokenizer, "reasoned", DEEPSEEK)]
    many = [
        ChatPrompts(tokenizer, "reasoned", read_template(DEEPSEEK)).build(
            AdviceRequest(RULES, f"State {n}: {'more ' * (n % 60)}", ("stick", "hit") if n % 2 else ("a", "b", "c"))
        )
        for n in range(64)
    ]
    assert sum(len(prompt.token_ids) for prompt in many) > 4096
    engine = VllmEngine(tutor(checkpoint, decoding="reasoned", thinking_tokens=8, thoughts=2))
    try:
        await engine.start()
        alone = await engine.write(prompts[0], 12)
        together, text, others = await asyncio.gather(
            engine.evaluate(many), engine.write(prompts[0], 12), engine.evaluate(prompts[:4])
        )
        one_by_one = [answer for prompt in many for answer in await engine.evaluate([prompt])]
    finally:
        engine.shutdown()
    assert text == alone and all(isinstance(answer, Advice) for answer in others)
    for answer, expected in zip(together, one_by_one, strict=True):
        assert isinstance(answer, Advice) and isinstance(expected, Advice)
        assert answer.thought == expected.thought
        assert total_variation(answer.probabilities, expected.probabilities) < 1e-4


@pytest.mark.parametrize("template", sorted(path.name for path in RECREATED.glob("*.jinja")))
def test_a_state_cannot_spell_the_formats_control_tokens(tokenizer: Any, template: str):
    builder = ChatPrompts(tokenizer, "scored", read_template(str(RECREATED / template)))
    plain, spelt = (
        builder.build(AdviceRequest(RULES, f"State{words}.", ("stick", "hit")))
        for words in ("", "".join((*SPECIAL, *NOT_SPECIAL)))
    )
    control = set(tokenizer.convert_tokens_to_ids([*SPECIAL, *NOT_SPECIAL]))
    assert [token for token in spelt.token_ids if token in control] == [
        token for token in plain.token_ids if token in control
    ]
    assert "".join(NOT_SPECIAL) in builder.show(spelt)
