"""chat and generate with adapters that learned from chats or pairs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.forms import fill_shelf

Cli = Callable[..., tuple[int, str, str]]

GOES_ON = "GPT-2 goes on with what you write; it does not answer questions."
CHAT = "It was trained on a chat: what you type is sent as 'User: ...'."
PAIRS = "It was trained on pairs: each line you type is asked by itself, without those before."


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    root = tmp_path_factory.mktemp("forms")
    place.create(root)
    fill_shelf(Registry(root), tiny_base)
    return root


@pytest.fixture
def chat(
    cli: Cli, shelf: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, str]]:
    """Type lines into ``chat`` with an adapter: (stdout, stderr)."""

    def call(typed: str, *argv: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code, out, err = cli("chat", *argv, "--registry", str(shelf), "--base", str(tiny_base))
        assert code == 0
        return out, err

    return call


@pytest.fixture
def generate(cli: Cli, shelf: Path, tiny_base: Path) -> Cli:
    def call(*argv: str) -> tuple[int, str, str]:
        return cli(
            "generate", *argv, "--max-new-tokens", "3", "--registry", str(shelf), "--base", str(tiny_base)
        )

    return call


def _saved() -> str:
    return Path("t.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("plain", GOES_ON),
        ("base", GOES_ON),
        ("chatter", CHAT),
        ("asked", PAIRS),
        (
            "twice",
            "It was trained on pairs that begin with '{context}\\nQ: {question}\\n'; what you type is left as it is.",
        ),
    ],
)
def test_the_opening_says_what_becomes_of_the_words(
    chat: Callable[..., tuple[str, str]], adapter: str, said: str
) -> None:
    assert said in chat("", adapter)[1].splitlines()[0]


def test_quiet_says_nothing(chat: Callable[..., tuple[str, str]]) -> None:
    assert chat("", "chatter", "-q") == ("", "")


def test_what_is_typed_becomes_a_turn(chat: Callable[..., tuple[str, str]]) -> None:
    chat("The lamp\n/save t.txt\n", "chatter", "--max-new-tokens", "4")
    assert _saved().startswith("User: The lamp\nAssistant:")


def test_what_is_typed_becomes_a_question_of_its_own(chat: Callable[..., tuple[str, str]]) -> None:
    chat("The lamp\nRain\n/save t.txt\n", "asked", "--max-new-tokens", "4")
    first, second = _saved().split("\n\nRain\n")
    assert first.startswith("The lamp\n")
    assert second


def test_raw_leaves_what_is_typed_as_it_is(chat: Callable[..., tuple[str, str]]) -> None:
    _, err = chat("The lamp\n/save t.txt\n", "chatter", "--raw", "--max-new-tokens", "4")
    assert GOES_ON in err
    assert _saved().startswith("The lamp")
    assert "User:" not in _saved()


def test_use_switches_the_form_and_says_so(chat: Callable[..., tuple[str, str]]) -> None:
    out, _ = chat("/use chatter\nRain\n/use asked\n/save t.txt\n", "plain", "--max-new-tokens", "4")
    lines = out.splitlines()
    assert lines[:2] == [" now chatter@1 (the text so far is read again in the new voice)", f" {CHAT}"]
    assert lines[-3:-1] == [" now asked@1", f" {PAIRS}"]
    assert _saved().startswith("User: Rain\nAssistant:")


def test_use_of_the_same_form_says_nothing_of_it(chat: Callable[..., tuple[str, str]]) -> None:
    assert chat("/use base\n", "plain")[0] == " now base (the text so far is read again in the new voice)\n"


def test_clear_begins_a_new_chat(chat: Callable[..., tuple[str, str]]) -> None:
    chat("The lamp\n/clear\nRain\n/save t.txt\n", "chatter", "--max-new-tokens", "4")
    assert _saved().startswith("User: Rain\nAssistant:")


@pytest.mark.parametrize(
    ("argv", "typed", "length"),
    [
        (("plain",), "", 60),
        (("chatter",), "", None),
        (("chatter", "--max-new-tokens", "7"), "", 7),
        (("plain",), "/use chatter\n", None),
        (("chatter",), "/use plain\n", 60),
        (("plain",), "/set max_new_tokens 9\n/use chatter\n", 9),
    ],
)
def test_a_passage_is_short_and_an_answer_as_long_as_its_adapter_writes(
    chat: Callable[..., tuple[str, str]], argv: tuple[str, ...], typed: str, length: int | None
) -> None:
    chat(f"{typed}Rain\n/save t.txt\n", *argv)
    (passage,) = json.loads(Path("t.json").read_text())["passages"]
    assert passage["settings"].get("max_new_tokens") == length


# --- generate ---


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("chatter", "chatter@1 was trained on a chat: adapterkit chat chatter wraps your words; "),
        ("asked", "asked@1 was trained on pairs: adapterkit chat asked wraps your words; "),
        (
            "plain=0.5,chatter=0.5",
            "chatter@1 was trained on a chat: adapterkit chat plain=0.5,chatter=0.5 wraps",
        ),
    ],
)
def test_generate_goes_on_and_names_chat(generate: Cli, adapter: str, said: str) -> None:
    code, _, err = generate(adapter, "The lamp")
    assert code == 0
    assert said in err
    assert "generate goes on from them as they are" in err


@pytest.mark.parametrize(
    "argv",
    [
        ("chatter", "The lamp", "-q"),
        ("plain", "The lamp"),
        ("base", "The"),
        ("chatter", "User: Hi\nAssistant:"),
    ],
    ids=["quiet", "plain", "base", "in its form"],
)
def test_generate_says_nothing_of_a_form_when_there_is_no_need(generate: Cli, argv: tuple[str, ...]) -> None:
    assert "was trained on" not in generate(*argv)[2]


def test_generate_leaves_the_prompt_as_it_is(generate: Cli) -> None:
    _, out, _ = generate("chatter", "The lamp", "--json")
    assert json.loads(out)["completions"][0]["prompt"] == "The lamp"


# --- /set ---


@pytest.mark.parametrize("seed", ["abc", "1.5", "true", "[1]"])
def test_a_seed_that_is_none_is_told_at_once_and_the_chat_goes_on(
    chat: Callable[..., tuple[str, str]], seed: str
) -> None:
    out, err = chat(
        f"/set seed {seed}\nThe lamp\n/set seed 3\n/retry\n/save t.txt\n", "plain", "--max-new-tokens", "3"
    )
    assert "it must be a whole number" in err
    assert " seed is 3" in out
    assert json.loads(Path("t.json").read_text())["passages"][0]["seed"] == 3


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (r"\n\n", "\n\n"),
        (r"a\tb", "a\tb"),
        (r"\\n", r"\n"),
        ("é海", "é海"),
        (r"\x", r"\x"),
        ("end\\", "end\\"),
    ],
)
def test_a_stop_is_kept_as_it_was_typed_but_for_line_ends_tabs_and_slashes(
    chat: Callable[..., tuple[str, str]], typed: str, kept: str
) -> None:
    chat(f"/set stop {typed}\nThe lamp\n/save t.txt\n", "plain", "--max-new-tokens", "3")
    (passage,) = json.loads(Path("t.json").read_text())["passages"]
    assert passage["settings"]["stop"] == kept
