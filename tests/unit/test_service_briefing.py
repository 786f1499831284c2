"""Strategy notes behind the rules: given, written by the tutor once, or absent."""

import asyncio

import pytest

from tests.unit.service_fakes import FakeModel, FakeStore, FakeTokenizer, make_gateway, request
from tutor_service.config import TutorConfig
from tutor_service.engines.base import Written
from tutor_service.errors import UserError
from tutor_service.gateway.briefing import tidy
from tutor_service.gateway.gateway import Explanation
from tutor_service.prompts.chat import ChatPrompts
from tutor_service.schema import Advice, AdviceError
from tutor_service.serving.prompting import check_briefing
from tutor_service.tutor_files import load_tutor

SHOWN = "Play.\n\nStrategy notes: Stick on 17 or more."


class Writer:
    """Writes notes and counts; fails while it is told to."""

    def __init__(self, answer: Written | AdviceError | Exception):
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, prompt, max_tokens):
        self.asked.append(FakeTokenizer().decode(prompt.token_ids))
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_tutor_writes_its_notes_once_and_they_are_kept():
    model, store, write = FakeModel(), FakeStore(), Writer(Written("Stick on 17 or more. Hit belo", whole=False))
    gateway = make_gateway(model, store, briefing="self", write=write)
    calls = [gateway.advise([request(n), request(n + 100)]) for n in range(5)]
    assert all(isinstance(answer, Advice) for answers in await asyncio.gather(*calls) for answer in answers)
    assert len(write.asked) == 1 and write.asked[0].startswith("<s><user>Play.\n\nWhat is the best")
    prompts = ChatPrompts(FakeTokenizer(), "scored")
    assert all(prompts.show(prompt).startswith(f"<s><user>{SHOWN}\n\n") for prompt in model.evaluated)
    later = make_gateway(model, store, briefing="self", write=write)
    (answer,) = await later.advise([request(1)])
    assert answer.source == "store" and len(write.asked) == 1, "notes and answers outlive the gateway"
    await later.advise([request(1, rules="Play well.")])
    assert len(write.asked) == 2, "other rules need other notes"


async def test_notes_are_written_to_the_end_when_whoever_asked_gives_up():
    gate, store = asyncio.Event(), FakeStore()

    async def slow(prompt, max_tokens):
        await gate.wait()
        return Written("Stick.", whole=True)

    gateway = make_gateway(FakeModel(), store, briefing="self", write=slow)
    impatient = asyncio.create_task(gateway.advise([request(1)]))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    gate.set()
    (answer,) = await gateway.advise([request(1)])
    assert isinstance(answer, Advice) and list(store.notes.values()) == ["Stick."]


async def test_notes_are_part_of_what_is_asked():
    model, store = FakeModel(), FakeStore()
    for briefing in ("none", "Always stick.", "Never stick.", "self"):
        (answer,) = await make_gateway(model, store, briefing=briefing).advise([request(1)])
        assert answer.source == "model"
        explained = await make_gateway(model, store, briefing=briefing).explain(request(1))
        assert isinstance(explained, Explanation) and explained.answer.source == "store"
        expected = {"none": None, "self": "Stick on 17 or more."}.get(briefing, briefing)
        assert explained.notes == expected and (expected or "Play.") in explained.prompt
    assert len(store.kept) == 4


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        (AdviceError("endpoint: 500", retry=True), "retry", "briefing: endpoint: 500"),
        (AdviceError("budget.max_requests = 5 is used up", fatal=True), "fatal", "briefing: budget.max_requests"),
        (ConnectionError("gone"), "retry", "replica failed"),
        (Written("  ", whole=True), "refused", "wrote nothing"),
    ],
)
async def test_without_notes_nothing_is_asked_and_nothing_kept(answer, outcome, said):
    model, store, write = FakeModel(), FakeStore(), Writer(answer)
    gateway = make_gateway(model, store, briefing="self", write=write)
    (error,) = await gateway.advise([request(1)])
    assert said in error.reason and (error.retry, error.fatal) == (outcome == "retry", outcome == "fatal")
    assert not model.evaluated and not store.notes and not store.kept
    write.answer = Written("Stick.", whole=True)
    assert isinstance((await gateway.advise([request(1)]))[0], Advice)


async def test_notes_that_leave_no_tokens_for_the_state_are_named():
    gateway = make_gateway(FakeModel(), briefing="x" * 300, max_prompt_tokens=250)
    (error,) = await gateway.advise([request(1)])
    assert error.reason.startswith("rules, briefing and state: ")
    config = TutorConfig(name="t", model="a/b", briefing="x" * 300)
    with pytest.raises(UserError, match=r"briefing has 30\d tokens.*leaves 250.*max_model_len"):
        check_briefing(config, ChatPrompts(FakeTokenizer(), "scored"), 250)
    check_briefing(config, ChatPrompts(FakeTokenizer(), "scored"), 500)


@pytest.mark.parametrize(
    ("text", "whole", "notes"),
    [
        ("Stick on 17.\n\n- Hit below.", True, "Stick on 17. - Hit below."),
        ("Stick on 17.5 or more. Hit belo", False, "Stick on 17.5 or more."),
        ("Never a deadly ce", False, "Never a deadly ce"),
        ("Strategy notes: Stick.", True, "Stick."),
    ],
)
def test_notes_end_where_a_sentence_ends(text, whole, notes):
    assert tidy(Written(text, whole)) == notes


def test_notes_come_from_the_tutor_file_or_a_file_beside_it(tmp_path):
    file = tmp_path / "mine.yaml"
    (tmp_path / "notes.md").write_text("Never a deadly cell.\n")
    file.write_text("model: a/b\nbriefing: notes.md\n")
    assert load_tutor(str(file)).briefing == "Never a deadly cell."
    file.write_text("model: a/b\nbriefing: Always stick.\n")
    assert load_tutor(str(file)).briefing == "Always stick."
    file.write_text("model: a/b\nbriefing: absent.txt\n")
    with pytest.raises(UserError, match=r"briefing = 'absent\.txt'.*cannot be read"):
        load_tutor(str(file))
    (tmp_path / "notes.md").write_text(" \n")
    file.write_text("model: a/b\nbriefing: notes.md\n")
    with pytest.raises(UserError, match="is empty"):
        load_tutor(str(file))
    file.write_text("model: a/b\nbriefing: ' '\n")
    with pytest.raises(UserError, match="briefing is empty"):
        load_tutor(str(file))
    file.write_text("model: a/b\ndecoding: reasoned\ntemplate_arguments: {enable_thinking: false}\n")
    with pytest.raises(UserError, match="reasoned' needs template_arguments without enable_thinking"):
        load_tutor(str(file))
