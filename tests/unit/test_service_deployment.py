"""What a tutor's Serve application is made of; nothing is started."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutor_service.config import TutorConfig
from tutor_service.engines import models
from tutor_service.engines.base import EngineFacts, Written
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.deployment import TutorGateway, build
from tutor_service.serving.prompting import load_tokenizer
from tutor_service.serving.remembered import FILE, forget, recall, remember
from tutor_service.serving.replica import Evaluated, TutorReplica, Wanted
from tutor_service.serving.scaling import gateway_settings
from tutor_service.serving.versions import version

TUTOR = TutorConfig(name="t", model="a/b")
PROMPT = Prompt((1, 2), (3, 4), ("hit", "stick"))
EVALUATION = Advice((0.5, 0.5), 1.0, tokens=3)
FACTS = EngineFacts("identity", "scored", max_prompt_tokens=None)
WANTED = Wanted(version(TUTOR), FACTS.identity)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_hub_commit", lambda repo, revision: None)


class Ended(BaseException):
    """Stands for the end of the process."""


class Engine:
    def __init__(self, dead: bool) -> None:
        self.dead = dead

    async def check_health(self) -> None:
        if self.dead:
            raise RuntimeError("gone")

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        return [EVALUATION] * len(prompts)

    def spent(self) -> str:
        return "3 requests"

    def shutdown(self) -> None:
        return


@pytest.mark.parametrize("dead", [False, True])
async def test_a_dead_engine_ends_its_replica_so_that_serve_replaces_it_at_once(
    dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(status: int) -> None:
        assert status != 0
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    replica = object.__new__(TutorReplica)
    replica._engine = Engine(dead)
    if not dead:
        await replica.check_health()
        return
    with pytest.raises(Ended):
        await replica.check_health()


async def test_a_replica_with_another_model_writes_nothing_under_the_gateways_key_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It started after its revision had moved, or on a node whose model folder differs."""

    def end(status: int) -> None:
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    replica = object.__new__(TutorReplica)
    replica._version, replica._engine = version(TUTOR), Engine(dead=False)
    replica._facts = EngineFacts("another identity", "scored", max_prompt_tokens=None)
    ((refusal,), *_) = await replica.evaluate([PROMPT], WANTED)
    assert isinstance(refusal, AdviceError) and refusal.retry and "another model" in refusal.reason
    assert isinstance(await replica.write(PROMPT, 9, WANTED), AdviceError)
    with pytest.raises(Ended):
        await replica.check_health()


async def test_a_gateway_that_only_replicas_with_another_model_answer_ends_and_another_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(status: int) -> None:
        raise Ended

    async def facts(version: str) -> EngineFacts:
        return FACTS

    async def evaluate(prompts: Sequence[Prompt], wanted: Wanted) -> Evaluated:
        replica = object.__new__(TutorReplica)
        replica._version, replica._engine = wanted.version, Engine(dead=False)
        replica._facts = EngineFacts(held, "scored", max_prompt_tokens=None)
        return await replica.evaluate(list(prompts), wanted)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr("tutor_service.serving.deployment._ALONE_S", 0.0)
    gateway = await started(tmp_path, monkeypatch, facts=facts, evaluate=evaluate)
    held = "another identity"
    (refused,) = await gateway.advise([AdviceRequest("Rules.", "One.", ("hit", "stick"))])
    assert isinstance(refused, AdviceError) and (await gateway.stats()).stored == 0
    held = FACTS.identity
    (answer,) = await gateway.advise([AdviceRequest("Rules.", "Two.", ("hit", "stick"))])
    assert isinstance(answer, Advice)
    await gateway.check_health()
    held = "another identity"
    await gateway.advise([AdviceRequest("Rules.", "Three.", ("hit", "stick"))])
    await gateway.check_health()  # nobody has asked again since
    await gateway.advise([AdviceRequest("Rules.", "Four.", ("hit", "stick"))])
    with pytest.raises(Ended):
        await gateway.check_health()
    gateway.__del__()


STICK = ("hit", "stick")


async def test_a_gateway_that_begins_anew_answers_what_is_stored_before_any_replica_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutor_service.serving.deployment._REPLICA_S", 0.05)
    replica_lives = asyncio.Event()

    async def facts(version: str) -> EngineFacts:
        await replica_lives.wait()
        return FACTS

    async def evaluate(prompts: Sequence[Prompt], wanted: Wanted) -> Evaluated:
        assert replica_lives.is_set()
        return Evaluated([Advice((0.75, 0.25), 0.5) for _ in prompts], "")

    replica_lives.set()
    earlier = await started(tmp_path, monkeypatch, facts=facts, evaluate=evaluate)
    await earlier.advise([AdviceRequest("Rules.", "One.", STICK)])
    earlier.__del__()
    replica_lives.clear()
    gateway = await asyncio.wait_for(started(tmp_path, monkeypatch, facts=facts, evaluate=evaluate), 10)
    (answer,) = await gateway.advise([AdviceRequest("Rules.", "One.", STICK)])
    assert isinstance(answer, Advice) and answer.source == "store"
    new = asyncio.create_task(gateway.advise([AdviceRequest("Rules.", "Two.", STICK)]))
    await asyncio.sleep(0.1)
    assert not new.done()
    replica_lives.set()
    (answer,) = await asyncio.wait_for(new, 10)
    assert isinstance(answer, Advice) and answer.source == "model"
    await gateway.check_health()
    gateway.__del__()


async def test_a_gateway_that_began_with_what_is_no_longer_true_ends_before_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutor_service.serving.deployment._REPLICA_S", 0.05)
    replica_lives = asyncio.Event()
    now = FACTS

    async def facts(version: str) -> EngineFacts:
        await replica_lives.wait()
        return now

    def end(status: int) -> None:
        raise Ended

    replica_lives.set()
    earlier = await started(tmp_path, monkeypatch, facts=facts)
    await earlier._confirming
    earlier.__del__()
    monkeypatch.setattr(os, "_exit", end)
    replica_lives.clear()
    gateway = await started(tmp_path, monkeypatch, facts=facts)
    now = dataclasses.replace(FACTS, identity="another identity")
    replica_lives.set()
    with pytest.raises(Ended):
        await gateway._confirming
    gateway.__del__()
    replica_lives.clear()
    again = await started(tmp_path, monkeypatch, facts=facts)
    assert (await again.stats()).identity == "another identity"
    again.__del__()


def test_what_an_engine_said_is_believed_of_its_own_configuration_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tutor"
    assert recall(folder, "1") is None
    said = dataclasses.replace(FACTS, notes=("a", "b"))
    remember(folder, "1", said)
    assert recall(folder, "1") == said and recall(folder, "2") is None
    (folder / FILE).write_text('{"version": "1", "facts": {"identity": "x"')
    assert recall(folder, "1") is None
    forget(folder)
    forget(folder)
    assert not list(folder.iterdir())
    (tmp_path / "file").write_text("in the way")
    remember(tmp_path / "file", "1", said)
    assert recall(tmp_path / "file", "1") is None


async def started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, briefing: str = "none", **methods: Any
) -> TutorGateway:
    """A gateway of an endpoint's tutor without Serve; ``methods`` stand for those of its replicas."""
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path))
    monkeypatch.setattr("tutor_service.serving.deployment.num_running", lambda application, deployment: 1)
    replica = SimpleNamespace(
        app_name="tutor-t",
        deployment_name="TutorReplica",
        **{name: SimpleNamespace(remote=method) for name, method in methods.items()},
    )
    config = TutorConfig(name="t", backend="openai", model="m", base_url="http://x", briefing=briefing)
    gateway = object.__new__(TutorGateway)
    await gateway.__init__(config, replica, None, {})  # type: ignore[misc]
    return gateway


def test_all_replicas_load_what_the_revision_was_when_the_tutor_was_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(config: TutorConfig, now: str | None, cached: str | None = None) -> tuple[str | None, str | None]:
        monkeypatch.setattr(models, "_hub_commit", lambda repo, revision: now)
        monkeypatch.setattr(models, "_cached_commit", lambda repo, revision: cached)
        gateway = build(config)._bound_deployment
        replica = gateway.init_args[1]._bound_deployment
        return gateway.init_args[0].revision, replica.init_args[0].revision

    one, two = "1" * 40, "2" * 40
    assert loaded(TUTOR, one) == (one, one)
    assert loaded(TUTOR, None, cached=two) == (two, two)
    assert loaded(TUTOR, None) == (None, None)
    assert loaded(TUTOR.model_copy(update={"revision": one}), two) == (one, one)
    endpoint = TutorConfig(name="t", backend="openai", model="a/b", base_url="http://x")
    assert loaded(endpoint, one) == (None, None)


@pytest.mark.parametrize("resource", [None, "advice_store"])
def test_the_gateway_stays_where_the_store_is(resource: str | None) -> None:
    gateway = build(TUTOR, None, resource)._bound_deployment
    assert list(gateway.ray_actor_options.get("resources") or {}) == ([resource] if resource else [])


def test_no_variable_but_the_home_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TUTORS_HOME", "/home/of/tutors")
    monkeypatch.setenv("SOME_KEY", "sesame")
    config = TutorConfig(name="t", backend="openai", model="m", base_url="http://x", api_key_env="SOME_KEY")
    gateway = build(config)._bound_deployment
    replica = gateway.init_args[1]._bound_deployment
    expected = {"LLM_TUTORS_HOME": "/home/of/tutors"}
    assert gateway.init_args[-1] == replica.init_args[-1] == expected


def test_scaling_a_tutor_leaves_its_loaded_replicas_alone() -> None:
    def replica_of(**scaling: object) -> tuple[object, ...]:
        config = TutorConfig.model_validate({**TUTOR.model_dump(), "scaling": scaling})
        return build(config)._bound_deployment.init_args[1]._bound_deployment.init_args

    assert replica_of(max_replicas=1) == replica_of(min_replicas=0, max_replicas=4, max_pending=9)
    assert replica_of(num_gpus=1) != replica_of(num_gpus=0)


@pytest.mark.parametrize(
    "change",
    [{"briefing": "self"}, {"briefing_tokens": 99}, {"hint": True}, {"calibration": "batch"}, {"license": "MIT"}],
)
def test_another_briefing_or_reading_leaves_the_loaded_model_alone(change: dict[str, object]) -> None:
    def arguments(config: TutorConfig) -> tuple[object, object]:
        gateway = build(config)._bound_deployment
        return gateway.init_args[0], gateway.init_args[1]._bound_deployment.init_args

    changed = TUTOR.model_copy(update=change)
    assert arguments(changed)[0] != arguments(TUTOR)[0] and arguments(changed)[1] == arguments(TUTOR)[1]


async def test_a_replica_of_another_configuration_answers_no_question_and_tells_no_facts() -> None:
    replica = object.__new__(TutorReplica)
    replica._version, replica._facts, replica._engine = version(TUTOR), FACTS, Engine(dead=False)
    other = version(TUTOR.model_copy(update={"thinking_tokens": 7}))
    ((refusal,), *_) = await replica.evaluate([PROMPT], Wanted(other, "identity"))
    assert isinstance(refusal, AdviceError) and refusal.retry
    assert (await replica.evaluate([PROMPT], WANTED))[:2] == ([EVALUATION], "3 requests")
    await replica.check_health()
    assert (await replica.facts(other), await replica.facts(version(TUTOR))) == (None, FACTS)


def save_tokenizer(folder: Path, tokenizer_class: str) -> None:
    """A tokenizer of two words, whose configuration names a class."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"hit": 0, "stick": 1}, unk_token="hit"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    (folder / "config.json").write_text("{}")


@pytest.fixture
def no_auto_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it imports torch."""
    import transformers

    class Auto:
        @staticmethod
        def from_pretrained(location: str, **options: object) -> str:
            return location

    monkeypatch.setitem(vars(transformers), "AutoTokenizer", Auto)  # by attribute, the real one would be imported


@pytest.mark.parametrize("tokenizer_class", ["TokenizersBackend", "PreTrainedTokenizerFast"])
@pytest.mark.usefixtures("no_auto_tokenizer")
def test_a_tokenizer_without_model_code_is_loaded_without_torch(tokenizer_class: str, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, tokenizer_class)
    tokenizer = load_tokenizer(TutorConfig(name="t", model=str(tmp_path)))
    assert tokenizer.encode("stick hit", add_special_tokens=False) == [1, 0]


@pytest.mark.parametrize("damage", ["other class", "code of its own", "no tokenizer.json", "not JSON", "a list"])
@pytest.mark.usefixtures("no_auto_tokenizer")
def test_any_other_tokenizer_is_left_to_transformers(damage: str, tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "LlamaTokenizer" if damage == "other class" else "TokenizersBackend")
    if damage == "code of its own":
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": {"AutoTokenizer": [None, "own.Tokenizer"]}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    if damage == "no tokenizer.json":
        (tmp_path / "tokenizer.json").unlink()
    if damage in ("not JSON", "a list"):
        (tmp_path / "tokenizer_config.json").write_text("{" if damage == "not JSON" else "[]")
    assert load_tokenizer(TutorConfig(name="t", model=str(tmp_path))) == str(tmp_path)


@pytest.mark.parametrize(
    ("fields", "batch", "in_flight", "timeout_s"),
    [
        ({}, 32, 128, 600.0),
        ({"backend": "openai", "concurrency": 8}, 4, 8, None),
        ({"backend": "openai", "concurrency": 1}, 1, 1, None),
    ],
)
def test_an_endpoint_is_sent_no_more_than_may_be_under_way_there(
    fields: dict[str, Any], batch: int, in_flight: int, timeout_s: float | None
) -> None:
    settings = gateway_settings(TutorConfig(name="t", model="a/b", **fields), FACTS)
    limits = settings.limits
    assert (limits.batch, settings.in_flight_per_replica, limits.timeout_s) == (batch, in_flight, timeout_s)
    assert limits.aborts == (timeout_s is not None), "what an endpoint works on is paid for"


@pytest.mark.parametrize("backend", ["vllm", "openai"])
def test_how_much_is_sent_to_a_replica_does_not_depend_on_how_many_there_may_be(backend: str) -> None:
    one, many = (
        TutorConfig.model_validate({"name": "t", "model": "a/b", "backend": backend, "scaling": {"max_replicas": n}})
        for n in (1, 100)
    )
    assert gateway_settings(one, FACTS) == gateway_settings(many, FACTS)


def replicas_wanted(config: TutorConfig, num_calls: int, num_prompts: int) -> float:
    """How many replicas Serve would want of a tutor, one of whose replicas has so much to do."""
    from ray.serve.config import AutoscalingContext

    scaling = build(config)._bound_deployment.init_args[1]._bound_deployment._deployment_config.autoscaling_config
    context = AutoscalingContext(
        deployment_id=None, deployment_name="TutorReplica", app_name="tutor-t", current_num_replicas=1,
        target_num_replicas=1, running_replicas=[], total_num_requests=num_calls, total_queued_requests=0,
        aggregated_metrics={"prompts": {"replica": float(num_prompts)}}, raw_metrics=None,
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=8, policy_state={}, last_scale_up_time=None,
        last_scale_down_time=None, current_time=None, config=scaling,
    )  # fmt: skip
    wanted, _ = scaling.policy.get_policy()(context)
    return float(wanted)


@pytest.mark.parametrize("num_calls", [3, 96])
def test_replicas_are_added_by_prompts_however_many_a_call_holds(num_calls: int) -> None:
    config = TutorConfig.model_validate({**TUTOR.model_dump(), "scaling": {"max_replicas": 8}})
    assert replicas_wanted(config, num_calls, num_prompts=96) == 3.0


@pytest.mark.parametrize("backend", ["vllm", "openai"])
@pytest.mark.parametrize("num_most", [2, 100])
def test_a_replica_that_is_sent_as_much_as_it_may_be_is_seen_as_too_few(backend: str, num_most: int) -> None:
    scaling = {"max_replicas": num_most}
    config = TutorConfig.model_validate({"name": "t", "model": "a/b", "backend": backend, "scaling": scaling})
    most = round(gateway_settings(config, FACTS).in_flight_per_replica)
    assert replicas_wanted(config, -(-most // 32), most) >= 2.0


async def test_a_replica_tells_serve_how_many_prompts_it_has() -> None:
    replica = object.__new__(TutorReplica)
    told: list[dict[str, float]] = []

    class Telling(Engine):
        async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
            told.append(await replica.record_autoscaling_stats())
            raise RuntimeError("gone")

    replica._version, replica._facts, replica._engine = version(TUTOR), FACTS, Telling(dead=False)
    with pytest.raises(RuntimeError, match="gone"):
        await replica.evaluate([PROMPT] * 5, WANTED)
    assert [*told, await replica.record_autoscaling_stats()] == [{"prompts": 5}, {"prompts": 0}]


async def test_the_ingress_briefs_asks_explains_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def facts(version: str) -> EngineFacts:
        return EngineFacts("identity", "scored", None)

    async def evaluate(prompts: Sequence[Prompt], wanted: Wanted) -> Evaluated:
        return Evaluated([Advice((0.25, 0.75), 0.2, tokens=3, thought="hm") for _ in prompts], "")

    async def write(prompt: Prompt, max_tokens: int, wanted: Wanted) -> Written:
        return Written("Stick on 17. And the", whole=False)

    gateway = await started(tmp_path, monkeypatch, "self", facts=facts, evaluate=evaluate, write=write)
    asked = AdviceRequest("Rules.", "A state.", ("hit", "stick"))
    (answer,) = await gateway.advise([asked])
    explained = await gateway.explain(asked)
    assert (answer.source, answer.thought, explained.answer.source, explained.thought) == ("model", "", "store", "hm")
    assert explained.notes == "Stick on 17." and "Strategy notes: Stick on 17.\n\nA state." in explained.prompt
    assert (await gateway.stats()).stored == 1
    gateway.__del__()
