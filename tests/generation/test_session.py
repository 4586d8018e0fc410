"""A session speaks to an adapter in the form it learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

import adapterkit as ak
from adapterkit.errors import PromptTooLong, UsageProblem
from adapterkit.generation.requests import Finish
from adapterkit.generation.results import Completion, Stream, Usage
from adapterkit.generation.sampling import Sampling
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.forms import fill_shelf, publish_form
from tests.make import make_base, make_peft_adapter


class Script:
    """Takes the place of ``Generator.stream``: notes what it is asked, answers from a list."""

    def __init__(self, *answers: str, reason: Finish = "stop") -> None:
        self.answers, self.reason = list(answers), reason
        self.prompts: list[str] = []
        self.memories: list[Any] = []
        self.settings: dict[str, Any] = {}

    def __call__(self, prompt: str, adapter: ak.Adapter = None, **settings: Any) -> Stream:
        self.prompts.append(prompt)
        self.memories.append(settings.pop("memory"))
        self.settings = settings
        text = self.answers.pop(0)

        def done() -> Completion:
            return Completion(text, prompt, "x", (), self.reason, "", 1, Sampling(), Usage(1, 1), 0.1)

        return Stream(self._pieces(text), done, lambda: None)

    @staticmethod
    def _pieces(text: str) -> Iterator[str]:
        for i in range(0, len(text), 3):
            yield text[i : i + 3]


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees 512 positions: a few turns and 200 new tokens."""
    return make_base(tmp_path_factory.mktemp("base") / "wide", seed=0, positions=512)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, wide_base: Path, loud: Path) -> Registry:
    root = tmp_path_factory.mktemp("forms")
    place.create(root)
    registry = Registry(root)
    fill_shelf(registry, wide_base)
    publish_form(registry, wide_base, "chatml", template="<|{role}|>{content}</s>\n")
    publish_form(registry, wide_base, "jokes", separator="<>")
    publish_form(registry, wide_base, "alpaca", prompt="{instruction}\n{input}\n", completion="output")
    publish_form(registry, wide_base, "unused", template="no template")
    registry.add(loud, name="loud", base=str(wide_base), force_base=True)
    return registry


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory, wide_base: Path) -> Path:
    """An adapter that writes otherwise than its base."""
    folder = tmp_path_factory.mktemp("loud") / "loud"
    return make_peft_adapter(folder, wide_base, seed=3, alpha=32.0, targets=["attn.c_attn", "mlp.c_fc"])


def _model(base: Path, adapter: Path | None) -> Any:
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    return PeftModel.from_pretrained(model, adapter).eval() if adapter else model


@pytest.fixture
def gen(shelf: Registry, wide_base: Path) -> ak.Generator:
    return ak.Generator(wide_base, registry=shelf, device="cpu")


def _script(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch, *answers: str, reason: Finish = "stop"
) -> Script:
    script = Script(*answers, reason=reason)
    monkeypatch.setattr(gen, "stream", script)
    return script


# --- chats ---


def test_what_is_said_to_a_chat_adapter_is_a_turn_of_its_chat(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, " Hello.", " Bye.")
    chat = ak.Session(gen, "chatter")
    chat("Hi")
    chat("See you")
    assert script.prompts == [
        "User: Hi\nAssistant:",
        "User: Hi\nAssistant: Hello.\nUser: See you\nAssistant:",
    ]


def test_an_answer_comes_without_the_blank_after_its_tag(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(gen, monkeypatch, "   Hello you.")
    chat = ak.Session(gen, "chatter")
    assert (chat("Hi"), chat.text) == ("Hello you.", "User: Hi\nAssistant:   Hello you.")


def test_an_answer_ends_where_another_would_speak(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, " Hello.")
    ak.Session(gen, "chatter")("Hi")
    assert script.settings["stop"] == ("\nUser:", "\nSystem:")


@pytest.mark.parametrize("stop", ["END", ("END",)])
def test_stops_of_ones_own_are_kept(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch, stop: Any) -> None:
    script = _script(gen, monkeypatch, " Hello.")
    chat = ak.Session(gen, "chatter", stop=stop)
    chat("Hi")
    assert (script.settings["stop"], chat.sampling) == (("END", "\nUser:", "\nSystem:"), {"stop": stop})


def test_the_end_of_a_turn_is_written_before_the_next(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, "Hello.", "Bye.")
    chat = ak.Session(gen, "chatml")
    chat("Hi")
    chat("See you")
    assert script.prompts[1] == "<|User|>Hi</s>\n<|Assistant|>Hello.</s>\n<|User|>See you</s>\n<|Assistant|>"


def test_nothing_said_to_a_cut_answer_lets_it_go_on(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, " Hello, my", " dear.", reason="length")
    chat = ak.Session(gen, "chatter")
    answers = [chat("Hi"), chat()]
    assert (script.prompts[1], answers) == ("User: Hi\nAssistant: Hello, my", ["Hello, my", " dear."])


def test_nothing_said_after_a_whole_answer_is_another_turn_of_the_assistant(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, " Hello.", " More.")
    chat = ak.Session(gen, "chatter")
    chat("Hi")
    chat()
    assert script.prompts[1] == "User: Hi\nAssistant: Hello.\nAssistant:"


def test_a_chat_may_begin_with_nothing_said(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, " Hello.")
    ak.Session(gen, "chatter")()
    assert script.prompts == ["Assistant:"]


def test_a_retry_asks_the_same_again(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, " Hello.", " Bye.", " Ciao.")
    chat = ak.Session(gen, "chatter")
    chat("Hi")
    chat("See you")
    assert "".join(chat.retry()) == "Ciao."
    assert script.prompts[2] == script.prompts[1]
    assert chat.text == script.prompts[1] + " Ciao."


def test_a_retry_by_another_writer_says_the_same_in_its_form(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, " there", " Hello.")
    chat = ak.Session(gen, "plain")
    chat("Hi")
    chat.switch("chatter")
    "".join(chat.retry())
    assert script.prompts == ["Hi", "User: Hi\nAssistant:"]


def test_a_chat_too_long_to_be_seen_begins_at_a_turn(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, *[" The lamp was lit."] * 24)
    chat = ak.Session(gen, "chatter")
    for _ in range(24):
        chat("Rain fell?")
    assert script.prompts[-1].startswith("User: Rain")
    assert chat.forgotten > 0


# --- pairs ---


@pytest.mark.parametrize("adapter", ["asked", "jokes", "alpaca"])
def test_each_line_said_to_an_adapter_of_pairs_is_asked_by_itself(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    script = _script(gen, monkeypatch, "You.", "Now.")
    chat = ak.Session(gen, adapter)
    chat("Who?")
    chat("When?")
    assert script.prompts == ["Who?\n", "When?\n"]
    assert "stop" not in script.settings


def test_the_text_of_pairs_has_all_of_them(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(gen, monkeypatch, "You.", "Now.")
    chat = ak.Session(gen, "asked")
    chat("Who?")
    chat("When?")
    assert chat.text == "Who?\nYou.\n\nWhen?\nNow."


def test_nothing_said_lets_the_answer_of_a_pair_go_on(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, "You.", "Now,", " dear.", reason="length")
    chat = ak.Session(gen, "asked")
    for said in ("Who?", "When?", ""):
        chat(said)
    assert script.prompts[2] == "When?\nNow,"


def test_a_retry_of_a_pair_replaces_its_answer(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(gen, monkeypatch, "You.", "Now.", "Then.")
    chat = ak.Session(gen, "asked")
    chat("Who?")
    chat("When?")
    "".join(chat.retry())
    assert chat.text == "Who?\nYou.\n\nWhen?\nThen."


def test_words_for_a_prompt_of_several_columns_are_left_as_typed(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, "You.")
    ak.Session(gen, "twice")("The facts.\nQ: Who?\n")
    assert script.prompts == ["The facts.\nQ: Who?\n"]


# --- as it is ---


@pytest.mark.parametrize("adapter", ["plain", "unused", "base", None])
def test_other_writers_go_on_with_the_text_as_it_is(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch, adapter: str | None
) -> None:
    script = _script(gen, monkeypatch, " lamp", " lit")
    chat = ak.Session(gen, adapter)
    chat("The")
    chat(" was")
    assert script.prompts == ["The", "The lamp was"]


def test_nothing_is_wrapped_when_it_should_not_be(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, " lamp")
    ak.Session(gen, "chatter", wrap=False)("The")
    assert (script.prompts, script.settings) == (["The"], {})


def test_a_blend_with_a_chat_adapter_is_spoken_to_as_a_chat(
    gen: ak.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(gen, monkeypatch, " Hello.")
    ak.Session(gen, "plain=0.5,chatter=0.5")("Hi")
    assert script.prompts == ["User: Hi\nAssistant:"]


def test_a_switch_changes_the_form(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, " is.", " Yes.", "You.", " Fine.")
    chat = ak.Session(gen, "plain")
    chat("So it")
    for adapter, said in (("chatter", "Is it?"), ("asked", "Who?"), ("plain", " And so")):
        chat.switch(adapter)
        chat(said)
    talk = "So it is.\nUser: Is it?\nAssistant:"
    assert script.prompts[1:] == [talk, "Who?\n", f"{talk} Yes.\n\nWho?\nYou. And so"]


def test_a_cleared_session_begins_anew(gen: ak.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(gen, monkeypatch, "You.", " Hello.")
    chat = ak.Session(gen, "asked")
    chat("Who?")
    chat.clear()
    chat.switch("chatter")
    chat()
    assert script.prompts[1] == "Assistant:"


def test_a_real_generator_answers_a_turn(gen: ak.Generator) -> None:
    chat = ak.Session(gen, "chatter", max_new_tokens=5, temperature=0)
    answer = chat("The lamp")
    assert chat.text == f"User: The lamp\nAssistant:{chat.last and chat.last.text}"
    assert answer == (chat.last and chat.last.text.lstrip(" "))


def test_undo_takes_a_turn_back_with_what_was_said(gen: ak.Generator) -> None:
    session = gen.session(None, max_new_tokens=4)
    session("The lamp")
    before = session.text
    session(" and then")
    assert (session.undo(), session.text) == (" and then", before)
    assert (session.undo(), session.text) == ("The lamp", "")


def test_there_is_nothing_to_take_back_in_a_new_text(gen: ak.Generator) -> None:
    with pytest.raises(UsageProblem, match="nothing to take back"):
        gen.session(None).undo()


def test_a_retry_after_an_undo_is_of_the_turn_before(gen: ak.Generator) -> None:
    session = gen.session(None, max_new_tokens=4, seed=1)
    session("The lamp")
    text = session.text
    session(" and")
    session.undo()
    "".join(session.retry())
    assert session.text == text


# --- too long, too busy, left ---


def test_a_text_too_long_is_an_error_where_it_may_not_slide(gen: ak.Generator) -> None:
    session = gen.session(None, overflow="error", max_new_tokens=4, temperature=0)
    session("The lamp")
    before = (session.text, len(session.passages))
    with pytest.raises(PromptTooLong, match=r"the text is [\d,]+ tokens; this base sees 512") as caught:
        session(" lamp" * 600)
    assert 'overflow="slide"' in caught.value.hint
    assert (session.text, len(session.passages)) == before  # that turn did not happen
    assert session(" and")


def test_a_text_slides_unless_it_is_told_otherwise(gen: ak.Generator) -> None:
    session = gen.session(None, max_new_tokens=4)
    session("lamp " * 600)
    assert session.forgotten > 0


def test_an_overflow_that_is_none_is_refused(gen: ak.Generator) -> None:
    with pytest.raises(UsageProblem, match="overflow of a session is 'left'"):
        gen.session(None, overflow="left")  # type: ignore[arg-type]


def test_a_turn_that_is_refused_leaves_the_text_as_it_was(gen: ak.Generator) -> None:
    session = gen.session(None, max_new_tokens=4, logit_bias={"lamp lit": 1})
    with pytest.raises(UsageProblem):
        session("The lamp")
    assert (session.text, session.passages) == ("", [])


def test_leaving_the_pieces_ends_the_writing_and_tells_what_was_seen(gen: ak.Generator) -> None:
    session = gen.session("plain", max_new_tokens=400, temperature=3.0)
    pieces = session.stream("The lamp")
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    (passage,) = session.passages
    assert (session.text, passage.text) == ("The lamp" + first, first)
    assert session.last is not None
    assert (passage.finish_reason, passage.seed) == ("cancelled", session.last.seed)


# --- what is kept of it ---


def test_each_passage_says_who_wrote_it_and_how(gen: ak.Generator) -> None:
    session = gen.session("plain", max_new_tokens=4, seed=3)
    session("The lamp")
    session.switch("jokes")
    session("Who?")
    first, second = session.passages
    assert (first.said, first.text, first.seed) == ("The lamp", session.text[8 : 8 + len(first.text)], 3)
    assert [(p.adapter, p.digests) for p in (first, second)] == [
        (f"{name}@1", (gen.registry[name].digest,)) for name in ("plain", "jokes")
    ]
    assert first.settings == {"max_new_tokens": 4, "seed": 3}
    session.undo()
    assert session.passages == [first]


def test_a_session_is_saved_as_text_and_beside_it_how_it_came_about(
    gen: ak.Generator, tmp_path: Path
) -> None:
    session = gen.session("plain", max_new_tokens=4, seed=3)
    session("Käse, 海")
    text, beside = session.save(tmp_path / "letter.txt")
    assert (text.read_text(encoding="utf-8"), beside.name) == (session.text, "letter.json")
    told = json.loads(beside.read_text(encoding="utf-8"))
    assert (told["schema"], told["text"], told["passages"][0]["said"]) == (1, session.text, "Käse, 海")
    again = ak.Session(gen, told["passages"][0]["adapter"], **told["passages"][0]["settings"])
    again(told["passages"][0]["said"])
    assert again.text == session.text


def test_a_path_of_json_is_that_file_alone_and_has_the_text(gen: ak.Generator, tmp_path: Path) -> None:
    session = gen.session("plain", max_new_tokens=4)
    session("The lamp")
    (path,) = session.save(str(tmp_path / "letter.json"))
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == session.text


# --- keep ---

LONG = "The lamp was lit and the tide came in over the stones. Rain fell on the market. " * 2


def _continued(gen: ak.Generator, adapters: list[tuple[str, bool]], **told: Any) -> list[ak.Completion]:
    """A turn each, switching before it; what was written in each."""
    session = gen.session("plain", temperature=0, max_new_tokens=12, **told)
    made = []
    for adapter, keep in adapters:
        session.switch(adapter, keep=keep)
        session(LONG if not made else " and")
        assert session.last is not None
        made.append(session.last)
    return made


def test_a_switch_reads_the_text_again_unless_it_keeps_it(gen: ak.Generator) -> None:
    _, exact = _continued(gen, [("plain", False), ("loud", False)])
    prompt = exact.prompt
    assert (exact.kept_prefix, exact.text) == (0, gen(prompt, "loud", temperature=0, max_new_tokens=12).text)
    first, kept = _continued(gen, [("plain", False), ("loud", True)])
    assert kept.prompt == prompt
    # what a random model wrote may be cut into other tokens when it is read as text
    assert kept.usage.prompt_tokens > kept.kept_prefix >= first.usage.prompt_tokens - 1


@pytest.mark.parametrize(("first", "then"), [("base", "loud"), ("loud", "base")])
def test_what_is_kept_is_what_the_writer_before_made_of_it(
    gen: ak.Generator, wide_base: Path, loud: Path, first: str, then: str
) -> None:
    """Against transformers: keys and values of the old model, gone on from by the new one."""
    start, kept = _continued(gen, [(first, False), (then, True)])
    ids = gen.writer(None).engine.encode(kept.prompt, raw=False)
    models = {name: _model(wide_base, loud if name == "loud" else None) for name in ("base", "loud")}
    n = kept.kept_prefix
    with torch.inference_mode():
        old, new = models[first], models[then]
        made = old(input_ids=torch.tensor([ids[:n]]), use_cache=True)
        cache, rest = made.past_key_values, ids[n:]
        wanted: list[int] = []
        for _ in range(kept.usage.new_tokens):
            made = new(input_ids=torch.tensor([rest]), past_key_values=cache, use_cache=True)
            cache, rest = made.past_key_values, [int(made.logits[0, -1].argmax())]
            wanted += rest
    assert start.kept_prefix == 0
    assert gen.writer(None).engine.tokenizer.decode(wanted) == kept.text


def test_what_one_session_keeps_another_never_reads(gen: ak.Generator) -> None:
    _, _, mixed = _continued(gen, [("plain", False), ("loud", True), ("loud", True)])
    assert mixed.kept_prefix > 32
    plain = gen(mixed.prompt, "loud", temperature=0, max_new_tokens=12)
    alone = ak.Generator(gen.base.folder, registry=gen.registry, device="cpu")
    with alone:
        assert plain.text == alone(mixed.prompt, "loud", temperature=0, max_new_tokens=12).text
    assert plain.kept_prefix == 0


def test_what_the_present_writer_read_since_the_switch_is_not_told_as_kept(gen: ak.Generator) -> None:
    told = {"temperature": 0, "max_new_tokens": 12}
    session = gen.session("plain", **told)
    kept = []
    for said, adapter in ((LONG, "loud"), (" and", None), (" then", None)):
        session(said)
        kept.append(session.last.kept_prefix if session.last else None)
        if adapter:
            session.switch(adapter, keep=True)
    assert kept[1] is not None
    assert kept == [0, kept[1], kept[1]]
    assert kept[1] > 32


def test_where_nothing_could_be_kept_at_the_switch_nothing_is_told_as_kept_later(gen: ak.Generator) -> None:
    session = gen.session("plain", temperature=0, max_new_tokens=4)
    session("The")  # too short to be kept
    session.switch("loud", keep=True)
    kept = []
    for said in (LONG, " and", " then"):
        session(said)
        kept.append(session.last.kept_prefix if session.last else None)
    assert kept == [0, 0, 0]


def test_two_switches_without_a_turn_between_go_on_from_the_same_text(gen: ak.Generator) -> None:
    session = gen.session("base", temperature=0, max_new_tokens=4)
    session(LONG)
    session.switch("plain", keep=True)
    session.switch("loud", keep=True)
    session(" and")
    assert session.last is not None
    assert session.last.kept_prefix > 32


def test_a_new_text_goes_on_from_nothing_that_others_read(gen: ak.Generator) -> None:
    session = gen.session("plain", temperature=0, max_new_tokens=12)
    session(LONG)
    session.switch("loud", keep=True)
    session.clear()
    session(LONG)
    assert session.last is not None
    assert session.last.kept_prefix == 0
    assert session.text == LONG + gen(LONG, "loud", temperature=0, max_new_tokens=12).text


def test_a_retry_is_made_when_it_is_asked_for(gen: ak.Generator) -> None:
    session = gen.session("plain", temperature=3.0, max_new_tokens=12)
    session("The lamp")
    again = session.retry()
    (passage,) = session.passages
    assert (session.text, passage.text) == ("The lamp" + again, again)
