import os
import re
import shutil

import pytest

from tutor_service.config import TutorConfig
from tutor_service.engines import models, vllm
from tutor_service.engines.decode import answer_in_text
from tutor_service.errors import UserError
from tutor_service.schema import AdviceError
from tutor_service.tutor_files import catalog_names, load_tutor

TUTOR = TutorConfig(name="t", model="org/model", engine={"max_model_len": 512, "quantization": "awq"})


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx2 avx512f", "float32"), ("avx512f avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("", "float32")],
)
def test_dtype_follows_the_processor(flags, dtype):
    assert vllm.cpu_dtype(f"processor : 0\nflags : {flags}\n") == dtype


def test_the_tutors_own_engine_options_win():
    config = TUTOR.model_copy(update={"engine": {"block_size": 64, "swap": 1}})
    options = vllm.engine_options(config, "org/model", has_gpu=False)
    assert options["block_size"] == 64 and options["swap"] == 1
    assert options["enforce_eager"] and options["enable_prefix_caching"]
    assert "kv_cache_memory_bytes" not in vllm.engine_options(config, "org/model", has_gpu=True)


@pytest.mark.parametrize("decoding", ["reasoned", "text"])
def test_on_a_cpu_seeded_samples_meet_no_split_prefill_and_no_rounding_by_their_neighbours(decoding):
    config = TutorConfig(name="t", model="org/model", decoding=decoding)
    options = vllm.engine_options(config, "org/model", has_gpu=False)
    assert options["enable_chunked_prefill"] is False and options["dtype"] == "float32"
    assert "enable_chunked_prefill" not in vllm.engine_options(config, "org/model", has_gpu=True)
    split = config.model_copy(update={"engine": {"enable_chunked_prefill": True}})
    with pytest.raises(UserError, match=r"engine\.enable_chunked_prefill = true"):
        vllm.engine_options(split, "org/model", has_gpu=False)


@pytest.mark.parametrize(
    "change",
    [
        {"decoding": "text"},
        {"decoding": "reasoned"},
        {"revision": "abc"},
        {"model": "org/other"},
        {"engine": {"quantization": "gptq"}},
    ],
)
def test_what_changes_answers_changes_the_identity(change):
    config = TUTOR.model_copy(update=change)
    assert vllm.identity(config, config.model, "float32") != vllm.identity(TUTOR, TUTOR.model, "float32")
    assert vllm.identity(TUTOR, TUTOR.model, "float32") != vllm.identity(TUTOR, TUTOR.model, "bfloat16")


def test_what_changes_only_speed_does_not():
    config = TUTOR.model_copy(update={"engine": {"quantization": "awq", "max_num_seqs": 3}, "temperature": 2.0})
    assert vllm.identity(config, config.model, "float32") == vllm.identity(TUTOR, TUTOR.model, "float32")


def test_thinking_budget_matters_where_it_thinks():
    one, other = (TUTOR.model_copy(update={"decoding": "reasoned", "thinking_tokens": budget}) for budget in (10, 20))
    assert vllm.identity(one, one.model, "float32") != vllm.identity(other, other.model, "float32")


def test_a_changed_folder_is_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = models.fingerprint(str(tmp_path), None)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert models.fingerprint(str(tmp_path), None) != before
    assert models.weight_bytes(str(tmp_path)) == 1


def test_a_copied_folder_is_the_same_model(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text("{}")
    (tmp_path / "one" / "model.safetensors").write_bytes(bytes(range(256)) * 32_768)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(tmp_path / "two" / "model.safetensors", (1, 1))
    assert models.fingerprint(str(tmp_path / "one"), None) == models.fingerprint(str(tmp_path / "two"), None)


@pytest.mark.parametrize("share", [0.0, 0.37, 0.9])
def test_a_tenth_of_a_large_file_that_differs_is_noticed(tmp_path, share):
    weights = bytearray(8 * 2**20)
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights)
    before = models.fingerprint(str(tmp_path), None)
    start = int(share * len(weights))
    weights[start : start + len(weights) // 10] = b"1" * (len(weights) // 10)
    path.write_bytes(weights)
    assert models.fingerprint(str(tmp_path), None) != before


@pytest.mark.parametrize(
    ("model", "said"),
    [("", "empty"), ("embedded:gpt", "embedded:smollm2"), ("/nowhere/at/all", "does not exist"), ("./no", "exist")],
)
def test_models_that_cannot_be_are_named(model, said):
    with pytest.raises(UserError, match=said):
        models.locate(TutorConfig(name="t", model=model))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        models.locate(TutorConfig(name="t", model=str(tmp_path)))


def test_hub_ids_are_left_as_they_are():
    assert models.locate(TUTOR) == "org/model"


async def test_text_is_asked_again_until_it_names_an_action():
    answers = ["Let me see.", "<action>fold</action>", "<action>hit</action>"]

    async def generate(attempt):
        return answers[attempt], 10

    found = await answer_in_text(generate, ("stick", "hit"), 3, prompt_tokens=100)
    assert (found.probabilities, found.legal_mass, found.invalid, found.tokens) == ((0, 1), 1.0, 2, 130)
    given_up = await answer_in_text(generate, ("stick", "hit"), 2, prompt_tokens=100)
    assert isinstance(given_up, AdviceError) and (given_up.invalid, given_up.tokens) == (2, 120)


def test_every_tutor_of_the_catalog_is_short_and_valid():
    from tutor_service.embedded.table import PREFIX
    from tutor_service.prompts.chat_templates import read_template
    from tutor_service.tutor_files import CATALOG_DIR

    assert {"llama", "vicuna", "deepseek", "smollm2", "openai", "oracle", "random"} <= set(catalog_names())
    for name in catalog_names():
        tutor = load_tutor(name)
        assert tutor.description and (tutor.license or tutor.backend != "vllm")
        if tutor.backend == "vllm" and not tutor.model.startswith(PREFIX):
            assert re.fullmatch("[0-9a-f]{40}", tutor.revision or ""), "name the commit whose weights are meant"
        assert len((CATALOG_DIR / f"{name}.yaml").read_text().splitlines()) <= 10
        if tutor.chat_template:
            read_template(tutor.chat_template)


def test_a_tutors_file_with_mistakes_names_them(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("decoding: guess\ntemprature: 2\n")
    with pytest.raises(UserError, match=r"decoding = 'guess'(.|\n)*temprature"):
        load_tutor(str(file))
    with pytest.raises(UserError, match="Did you mean 'smollm2'"):
        load_tutor("smolm2")


def test_an_error_that_follows_from_another_is_not_told(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("scaling: {num_gpus: -1}\n")
    with pytest.raises(UserError, match=r"mine.yaml': scaling.num_gpus = -1: Input should be [a-z ]* 0$"):
        load_tutor(str(file))
