"""A session speaks to an adapter in the form it learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import adapterkit as ak
from adapterkit.errors import UsageProblem
from adapterkit.generation.requests import Finish
from adapterkit.generation.results import Completion, Stream, Usage
from adapterkit.generation.sampling import Sampling
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.forms import fill_shelf, publish_form
from tests.make import make_base


class Script:
    """Takes the place of ``Generator.stream``: notes what it is asked, answers from a list."""

    def __init__(self, *answers: str, reason: Finish = "stop") -> None:
        self.answers, self.reason = list(answers), reason
        self.prompts: list[str] = []
        self.settings: dict[str, Any] = {}

    def __call__(self, prompt: str, adapter: ak.Adapter = None, **settings: Any) -> Stream:
        self.prompts.append(prompt)
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
def shelf(tmp_path_factory: pytest.TempPathFactory, wide_base: Path) -> Registry:
    root = tmp_path_factory.mktemp("forms")
    place.create(root)
    registry = Registry(root)
    fill_shelf(registry, wide_base)
    publish_form(registry, wide_base, "chatml", template="<|{role}|>{content}</s>\n")
    publish_form(registry, wide_base, "jokes", separator="<>")
    publish_form(registry, wide_base, "alpaca", prompt="{instruction}\n{input}\n", completion="output")
    publish_form(registry, wide_base, "unused", template="no template")
    return registry


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
