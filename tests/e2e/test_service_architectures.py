"""Random weights of other architectures: the distribution is the model's, whatever the model and the template."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.reference import distributions, make_checkpoint, total_variation
from tutor_service.config import CATALOG_DIR, TutorConfig
from tutor_service.engines.vllm import VllmEngine
from tutor_service.prompt import ChatPrompts, read_template
from tutor_service.schema import AdviceRequest


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
async def test_scored_distributions_equal_those_of_transformers(architecture: str, model_folder: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    folder = make_checkpoint(architecture, model_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = []
    shipped = [read_template(path.stem) for path in sorted((CATALOG_DIR / "templates").glob("*.jinja"))]
    for template in (None, *shipped):
        builder = ChatPrompts(tokenizer, "scored", template)
        for number in range(4):
            prompts.append(builder.build(AdviceRequest("Some rules.", f"State {number}.", ("stick", "hit"))))
            prompts.append(
                builder.build(AdviceRequest("Some rules.", f"State {number}.", ("go up", "go down", "wait")))
            )
    engine = VllmEngine(TutorConfig(name="tiny", model=str(folder), engine={"dtype": "float32", "max_model_len": 512}))
    try:
        await engine.start()
        answers = await engine.evaluate(prompts)
    finally:
        engine.shutdown()
    spread = set()
    for answer, (expected, mass) in zip(answers, distributions(folder, prompts), strict=True):
        assert total_variation(answer.probabilities, expected) < 1e-3
        assert answer.legal_mass == pytest.approx(mass, rel=1e-2, abs=1e-6)
        spread.add(round(answer.probabilities[0], 3))
    assert len(spread) > len(prompts) // 2, "random weights that always say the same prove nothing"
