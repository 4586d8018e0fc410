"""generate, compare and chat as a person types them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import adapterkit as ak
from adapterkit.cli.output import base_of
from adapterkit.cli.writing_flags import SAMPLING
from adapterkit.model.base import locate
from adapterkit.recipe.keys import keys
from adapterkit.registry.store import Registry
from tests.forms import import_manifest
from tests.make import make_base, make_peft_adapter

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


# --- settings, and words that begin with a dash ------------------------------------------


def writes_as(cli: Cli, *words: str) -> str:
    code, out, err = cli("generate", "odd", *words, "--echo", "--seed", "3", "--max-new-tokens", "4")
    assert code == 0, err
    return out


@pytest.mark.parametrize(
    "text", ["-- a dash first", "--temperature is a word here", "-n 3 barrels", "--stop=at the sea", "-\n-"]
)
def test_an_argument_with_a_space_is_the_prompt(cli: Cli, text: str) -> None:
    if text.startswith("--stop="):  # the one form that is an option all the same
        assert writes_as(cli, text, "The lamp").startswith("The lamp")
    else:
        assert writes_as(cli, text).startswith(text)
        assert writes_as(cli, "--top-k", "5", text, "--raw").startswith(text)


def test_the_value_of_an_option_may_begin_with_a_dash_and_hold_spaces(cli: Cli) -> None:
    assert writes_as(cli, "-p", "-- a dash first").startswith("-- a dash first")
    assert writes_as(cli, "--stop", "-- a b", "-- c d").startswith("-- c d")
    assert writes_as(cli, "--prompt=-- a b").startswith("-- a b")


def test_after_two_dashes_all_is_text(cli: Cli) -> None:
    code, out, _ = cli("generate", "--echo", "--max-new-tokens", "2", "--", "odd", "--top-k one")
    assert code == 0
    assert out.startswith("--top-k one")


def test_an_option_misspelt_is_still_told(cli: Cli) -> None:
    code, _, err = cli("generate", "odd", "The", "--temprature", "0.5")
    assert code == 2
    assert "--temprature" in err


@pytest.mark.parametrize("verb", ["generate", "compare", "chat"])
def test_rare_settings_are_left_to_help_all(cli: Cli, verb: str) -> None:
    rare = [
        "--typical-p",
        "--presence-penalty",
        "--frequency-penalty",
        "--no-repeat-ngram-size",
        "--logit-bias",
    ]
    short, full = cli(verb, "--help")[1], cli(verb, "--help-all")[1]
    assert [flag for flag in rare if flag in short] == []
    assert [flag for flag in [*rare, "--min-p"] if flag not in full] == []


def test_every_setting_of_the_recipe_is_a_flag() -> None:
    assert {f"sample.{name}" for name in SAMPLING} == {k for k in keys() if k.startswith("sample.")} - {
        "sample.prompts"
    }


def test_settings_reach_what_is_written(cli: Cli) -> None:
    told = ["--min-p", "0.1", "--typical-p", "0.9", "--presence-penalty", "0.5", "--frequency-penalty", "-0.5",
            "--no-repeat-ngram-size", "3", "--logit-bias", "7=-100", "--logit-bias", "8=2"]  # fmt: skip
    _, out, _ = cli("generate", "odd", "The", *told, "--max-new-tokens", "3", "--json")
    sampling = json.loads(out)["completions"][0]["sampling"]
    names = (
        "min_p",
        "typical_p",
        "presence_penalty",
        "frequency_penalty",
        "no_repeat_ngram_size",
        "logit_bias",
    )
    assert [sampling[name] for name in names] == [0.1, 0.9, 0.5, -0.5, 3, [[7, -100.0], [8, 2.0]]]


def test_a_bias_of_another_form_is_told(cli: Cli) -> None:
    code, _, err = cli("generate", "odd", "The", "--logit-bias", "much")
    assert code == 2
    assert "logit_bias has 'much', which is not TOKEN=BIAS with a number from -100 to 100" in err
    assert "--logit-bias 262=-5" in err


def test_chat_sets_a_bias_and_the_other_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "/set logit_bias 7=-100\n/set min_p=0.1\n/set logit_bias much\n/set top_k 3\nThe\n")
    code, out, err = cli("chat", "odd", "--max-new-tokens", "3")
    assert code == 0
    assert " logit_bias is '7=-100'\n min_p is 0.1\n top_k is 3\n" in out
    assert "logit_bias has 'much'" in err


# --- another base, and versions that another tool made -----------------------------------


@pytest.fixture
def other_base(tmp_path: Path) -> str:
    return str(make_base(tmp_path / "other", seed=5))


@pytest.fixture
def _asked_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base that --base names."""
    for module in ("write", "chat"):
        monkeypatch.setattr(f"adapterkit.cli.{module}.base_of", base_of)


@pytest.mark.usefixtures("_asked_base")
def test_a_forced_base_is_said_once_and_in_every_record(cli: Cli, other_base: str) -> None:
    forced = [
        "generate",
        "odd",
        "The",
        "-n",
        "2",
        "--base",
        other_base,
        "--force-base",
        "--max-new-tokens",
        "3",
    ]
    told = "· odd@1 was made on another base than other and forced onto it (--force-base).\n"
    assert cli(*forced)[2].count(told) == 1
    made = json.loads(cli(*forced, "--json")[1])["completions"]
    assert [c["forced_base"] for c in made] == [True, True]


def test_force_base_that_was_not_needed_is_not_mentioned(cli: Cli) -> None:
    code, _, err = cli("generate", "odd", "The", "--force-base", "--max-new-tokens", "3")
    assert (code, "--force-base" in err) == (0, False)


@pytest.mark.usefixtures("_asked_base")
def test_compare_and_chat_say_that_the_base_was_forced(
    cli: Cli, other_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--base", other_base, "--force-base", "--max-new-tokens", "3"]
    assert "odd@1 was made on another base" in cli("compare", "base", "odd", "-p", "The", *where)[2]
    type_in(monkeypatch, "The\n\n")
    assert cli("chat", "odd", *where)[2].count("odd@1 was made on another base") == 1


def test_compare_of_two_versions_says_how_they_were_made_differently(cli: Cli) -> None:
    out = cli("compare", "odd", "even", "-p", "The", "--max-new-tokens", "3")[1]
    told = out.splitlines()[-1]
    assert told.startswith("made differently: text ")
    assert cli(*told.split("adapterkit ")[1].split())[0] == 0


def test_an_import_without_data_and_with_half_a_recipe_writes(
    cli: Cli, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Registry(tmp_path / "imports")
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(store.path))
    prints = vars(locate(str(tiny_base)).fingerprints)
    with store.staging() as folder:
        make_peft_adapter(folder, tiny_base, seed=3, targets=["attn.c_attn"])
        store.publish(folder, import_manifest("foreign", prints))
    for words in (["generate", "foreign", "The"], ["compare", "base", "foreign"], ["chat", "foreign"]):
        assert cli(*words, "--max-new-tokens", "3")[0] == 0, words
