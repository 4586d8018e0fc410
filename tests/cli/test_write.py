"""generate, compare and chat as a person types them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import adapterkit as ak

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    from tests.conftest import SENTENCES

    root = tmp_path_factory.mktemp("shelf")
    for name, part in (("odd", SENTENCES[1::2]), ("even", SENTENCES[0::2])):
        texts = [f"{part[i % 4]} {part[(i + 1) % 4]}" for i in range(120)]
        ak.train(ak.Documents(texts, name=name), registry=root, base=str(tiny_base), device="cpu",
                 epochs=2, max_length=64, tokens_per_step=512, learning_rate=0.01, max_new_tokens=12)  # fmt: skip
    return root


@pytest.fixture(autouse=True)
def _use(shelf: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(shelf))
    monkeypatch.setattr("adapterkit.cli.output.base_of", lambda *_: str(tiny_base))
    monkeypatch.setattr("adapterkit.cli.write.base_of", lambda *_: str(tiny_base))
    monkeypatch.setattr("adapterkit.cli.chat.base_of", lambda *_: str(tiny_base))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_pipe_gets_the_new_text_only_and_the_footer_goes_to_stderr(cli: Cli) -> None:
    code, out, err = cli("generate", "odd", "The lamp", "--seed", "3", "--max-new-tokens", "6")
    assert code == 0
    assert not out.startswith("The lamp")
    assert re.fullmatch(r"· odd@1 [0-9a-f]{8} · \d+ tokens.* · [\d.]+ s · seed 3\n", err)


def test_echo_prints_the_prompt_too(cli: Cli) -> None:
    assert cli("generate", "odd", "The lamp", "--echo", "--seed", "3")[1].startswith("The lamp")


def test_the_prompt_may_come_from_a_pipe(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    named = cli("generate", "odd", "The lamp", "--seed", "3")[1]
    type_in(monkeypatch, "The lamp\n")
    assert cli("generate", "odd", "--seed", "3")[1] == named


def test_json_is_one_document_with_the_resolved_writer(cli: Cli) -> None:
    _, out, _ = cli("generate", "odd=0.5,even=0.5", "The", "-n", "2", "--json", "--seed", "1")
    told = json.loads(out)
    assert told["schema"] == 1
    assert [c["adapter"] for c in told["completions"]] == ["odd@1=0.5,even@1=0.5"] * 2


def test_two_adapters_without_weights_are_told_both_ways(cli: Cli) -> None:
    code, _, err = cli("generate", "odd,even", "The")
    assert code == 2
    assert 'a mix is written "odd=0.5,even=0.5"; side by side: adapterkit compare odd even' in err


def test_compare_shows_both_names_and_one_seed(cli: Cli) -> None:
    code, out, err = cli("compare", "odd", "base", "-p", "The lamp")
    assert (code, err) == (0, "")
    assert out.startswith("same seed 17, temperature 0.8, top-p 0.95\n")
    assert re.search(r"\nThe lamp\n  odd@1 +base\n", out)


def test_compare_of_one_names_the_base(cli: Cli) -> None:
    code, _, err = cli("compare", "odd")
    assert code == 2
    assert "adapterkit compare base odd" in err


def test_chat_writes_switches_sets_and_retries(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "The lamp\n/set temperature 0.1\n/use even\n\n/retry\n/list\n/help\n")
    code, out, err = cli("chat", "odd", "--max-new-tokens", "5")
    assert code == 0
    assert "temperature is 0.1" in out
    assert "now even@1 (the text so far is read again in the new voice)" in out
    assert "/retry" in out
    assert err.startswith("· odd@1 on tiny, cpu.")


def test_chat_goes_on_after_a_mistake(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "/use nobody\n/nope\n/set temperature 99\n/use even\n")
    code, out, err = cli("chat", "odd")
    assert code == 0
    assert "no adapter named 'nobody'" in err
    assert "there is no command /nope" in err
    assert "temperature is 99; it must be a number, at least 0, at most 10" in err
    assert "now even@1" in out


def test_chat_saves_the_text_and_how_it_came_about(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "The lamp\n/save letter.txt\n")
    cli("chat", "odd", "--max-new-tokens", "5", "--seed", "2")
    assert Path("letter.txt").read_text().startswith("The lamp")
    assert json.loads(Path("letter.json").read_text())["passages"][0]["seed"] == 2
