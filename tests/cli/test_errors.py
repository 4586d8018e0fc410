"""The likeliest mistakes (docs: surface), word for word with numbers masked, and then what each hint says to type."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from adapterkit.model.base import Base, remember
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.conftest import SENTENCES
from tests.forms import publish_form
from tests.make import make_base
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]
SHORT = ["--max-new-tokens", "3"]


@pytest.fixture
def here(tmp_path: Path) -> Registry:
    """A project's own registry, found from the working folder."""
    place.create(tmp_path / "desk" / "adapters")
    return Registry()


@pytest.fixture
def stories(here: Registry, tiny_base: Path) -> Registry:
    """noir, shanty and stories, the last made last, on the tiny base."""
    base = Base("tiny", tiny_base)
    remember(base)
    for seed, name in enumerate(("noir", "shanty", "stories")):
        publish(here, name, base_fingerprints=asdict(base.fingerprints), seed=seed)
    return here


@pytest.fixture
def on_tiny(tiny_base: Path) -> list[str]:
    """Flags that stand for the 548 MB of a real base."""
    return ["--base", str(tiny_base), "--device", "cpu"]


@pytest.fixture
def tiny(on_tiny: list[str]) -> list[str]:
    """Flags that make a training take a second and say its ref alone."""
    return [*on_tiny, "--epochs", "1", *SHORT, "-q"]


def masked(text: str, tmp_path: Path) -> str:
    """Numbers as N, this test's folder as DIR."""
    return re.sub(r"\d[\d,.]*\d|\d", "N", text.replace(str(tmp_path / "desk"), "DIR"))


def commands(err: str) -> list[list[str]]:
    """Every ``adapterkit ...`` of the hint as the words a shell makes of it."""
    hint = err.partition("hint:  ")[2].split("\n")[0]
    found = re.findall(r"adapterkit (.*?)(?=  |; |\)|, or |$)", hint)
    return [shlex.split(f) for f in found]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ('adapterkit generate a "B c"     (you have a)', [["generate", "a", "B c"]]),
        ("see (all: adapterkit list; more)", [["list"]]),
        ("adapterkit train ./x     or: adapterkit train --recipe x", [["train", "./x"], ["train", "--recipe", "x"]]),
    ],
)  # fmt: skip
def test_commands_are_found_in_a_hint(hint: str, expected: list[list[str]]) -> None:
    assert commands(f"error: x\nhint:  {hint}\n") == expected


# --- 1: the prompt where the adapter belongs ------------------------------------------


MISTAKE_1 = """\
error: 'Once' is not an adapter. The adapter comes first, then the prompt in quotes.
hint:  adapterkit generate stories "Once upon a time"     (you have noir, shanty, stories; 'base' is plain GPT-N)
"""


@pytest.mark.usefixtures("stories")
def test_1_a_prompt_without_an_adapter(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("generate", "Once", "upon", "a", "time")
    assert (code, out, masked(err, tmp_path)) == (2, "", MISTAKE_1)


@pytest.mark.usefixtures("stories")
def test_1_the_hint_runs(cli: Cli) -> None:
    hinted = commands(cli("generate", "Once", "upon", "a", "time")[2])[0]
    code, out, err = cli(*hinted, *SHORT)
    assert (code, err.split()[1]) == (0, "stories@1")
    assert out


@pytest.mark.parametrize("words", [["Once upon a time"], ["once", "upon", "a", "time"], ["Once"]])
@pytest.mark.usefixtures("stories")
def test_1_in_every_form(cli: Cli, words: list[str]) -> None:
    code, _, err = cli("generate", *words)
    assert (code, commands(err)) == (2, [["generate", "stories", " ".join(words)]])


def test_1_without_any_adapter_the_hint_is_the_base(cli: Cli, here: Registry) -> None:
    assert commands(cli("generate", "Once", "upon")[2])[0] == ["generate", "base", "Once upon"]


@pytest.mark.usefixtures("stories")
def test_1_a_prompt_without_quotes_after_the_adapter(cli: Cli) -> None:
    code, _, err = cli("generate", "noir", "The", "sea")
    assert (code, commands(err)) == (2, [["generate", "noir", "The sea"]])


@pytest.mark.usefixtures("stories")
def test_1_a_quote_in_the_prompt_survives_the_hint(cli: Cli) -> None:
    err = cli("generate", "Then", "she", 'said "no', "more")[2]
    assert commands(err)[0] == ["generate", "stories", 'Then she said "no more']


# --- 2: a name misspelt ----------------------------------------------------------------


def test_2_a_name_misspelt(cli: Cli, stories: Registry, tmp_path: Path) -> None:
    code, out, err = cli("chat", "storys")
    assert (code, out) == (1, "")
    assert masked(err, tmp_path).startswith("error: no adapter named 'storys' in DIR/adapters.\nhint:  ")
    assert "'stories'" in err or "adapterkit chat stories" in err


@pytest.mark.usefixtures("stories")
def test_2_the_hint_is_the_command_to_paste(cli: Cli) -> None:
    assert commands(cli("chat", "storys")[2])[0] == ["chat", "stories"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["generate", "storys", "The sea", "-n", "2"], ["generate", "stories", "The sea", "-n", "2"]),
        (["generate", "noir=0.5,storys@1=0.5", "storys"], ["generate", "noir=0.5,stories@1=0.5", "storys"]),
        (["compare", "noir", "storys"], ["compare", "noir", "stories"]),
        (["show", "storys@1", "--recipe"], ["show", "stories@1", "--recipe"]),
    ],
)
@pytest.mark.usefixtures("stories")
def test_2_the_rest_of_the_command_stays(cli: Cli, typed: list[str], meant: list[str]) -> None:
    assert commands(cli(*typed)[2])[0] == meant


@pytest.mark.usefixtures("stories")
def test_2_the_hint_runs(cli: Cli) -> None:
    assert cli(*commands(cli("chat", "storys")[2])[-1])[0] == 0


@pytest.mark.usefixtures("stories")
def test_2_the_name_that_was_meant_runs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli("chat", "stories")[0] == 0


@pytest.mark.usefixtures("here")
def test_2_adapters_of_the_home_folder_are_counted(cli: Cli) -> None:
    for name in ("noir", "shanty"):
        publish(Registry(place.home()), name)
    publish(Registry(), "stories")
    assert "adapters has 2 more" in cli("chat", "storys")[2]


@pytest.mark.usefixtures("here")
def test_2_the_home_folder_is_shown_as_a_tilde(cli: Cli) -> None:
    publish(Registry(place.home()), "noir")
    publish(Registry(), "stories")
    assert "~/.adapterkit/adapters has 1 more" in cli("chat", "storys")[2]


# --- 3: a folder misspelt ----------------------------------------------------------------


MISTAKE_3 = """\
error: there is no file or folder 'storise/' in DIR.
hint:  adapterkit train stories/     (a dataset on the Hub is written owner/name or hub:name)
"""


def _write_stories() -> None:
    Path("stories").mkdir()
    for i, sentence in enumerate(SENTENCES):
        Path(f"stories/{i}.txt").write_text(sentence + "\n")


def test_3_a_folder_misspelt(cli: Cli, tmp_path: Path) -> None:
    _write_stories()
    code, out, err = cli("train", "storise/")
    assert (code, out, masked(err, tmp_path)) == (1, "", MISTAKE_3)


@pytest.mark.usefixtures("here")
def test_3_the_hint_runs(cli: Cli, tiny: list[str]) -> None:
    _write_stories()
    hinted = commands(cli("train", "storise/")[2])[0]
    assert cli(*hinted, *tiny, "--validation", "none") == (0, "stories@1\n", "")


# --- 5: too little text --------------------------------------------------------------------


MISTAKE_5 = """\
· Text poem.txt.
error: poem.txt has N words in N document; about N are needed to learn a style and still test it honestly.
hint:  add text, or try it untested: adapterkit train poem.txt --validation none     (it may copy you word for word)
"""


def test_5_too_little_text(cli: Cli, on_tiny: list[str], tmp_path: Path) -> None:
    Path("poem.txt").write_text("\n".join(SENTENCES))
    code, out, err = cli("train", "poem.txt", *on_tiny)
    assert (code, out, masked(err, tmp_path)) == (1, "", MISTAKE_5)


@pytest.mark.usefixtures("here")
def test_5_the_hint_runs(cli: Cli, tiny: list[str]) -> None:
    Path("poem.txt").write_text("\n".join(SENTENCES))
    hinted = commands(cli("train", "poem.txt", *tiny)[2])[0]
    assert cli(*hinted, *tiny) == (0, "poem@1\n", "")


# --- 6: a table without a column called text -----------------------------------------------


MISTAKE_6 = """\
· Text jokes.csv.
error: jokes.csv has no column 'text'. It has: opener, closer, score.
"""
JOKES = "opener,closer,score\n" + "".join(f'"{a}","{b}",3\n' for a in SENTENCES[:4] for b in SENTENCES[4:])


def _train_jokes(cli: Cli, *more: str) -> tuple[int, str, str]:
    Path("jokes.csv").write_text(JOKES)
    return cli("train", "jokes.csv", *more)


def test_6_a_table_without_text(cli: Cli, on_tiny: list[str], tmp_path: Path) -> None:
    code, out, err = _train_jokes(cli, *on_tiny)
    assert (code, out) == (1, "")
    assert masked(err, tmp_path).startswith(MISTAKE_6)


def test_6_the_hint_names_a_column_with_text(cli: Cli, on_tiny: list[str]) -> None:
    assert "hint:  --data-text closer" in _train_jokes(cli, *on_tiny)[2]


@pytest.mark.usefixtures("here")
def test_6_the_hint_runs(cli: Cli, tiny: list[str]) -> None:
    hinted = _train_jokes(cli, *tiny)[2].partition("hint:  ")[2].partition(",")[0].split()
    assert _train_jokes(cli, *tiny, *hinted, "--validation", "none") == (0, "jokes@1\n", "")


# --- 7: a typo in a recipe -------------------------------------------------------------------


MISTAKE_7 = """\
· Recipe configs/noir.yaml.
error: N problems:
       configs/noir.yaml line N: unknown key 'lora.rank', did you mean 'lora.r'?
       configs/noir.yaml line N: 'train.epochs' is 'many'; it must be a number, above N, at most N, or auto
       configs/noir.yaml line N: unknown key 'sample.temperatur', did you mean 'sample.temperature'?
hint:  every key with default and limits: adapterkit init --recipe example
"""


def _write_typos() -> None:
    Path("configs").mkdir()
    Path("configs/noir.yaml").write_text(
        "lora:\n  rank: 8\ntrain:\n  epochs: many\nsample:\n  temperatur: 1\n"
    )


def test_7_typos_in_a_recipe_all_at_once(cli: Cli, tmp_path: Path) -> None:
    _write_typos()
    code, out, err = cli("train", "configs/noir.yaml")
    assert (code, out, masked(err, tmp_path)) == (1, "", MISTAKE_7)


def test_7_the_lines_are_those_of_the_file(cli: Cli) -> None:
    _write_typos()
    assert re.findall(r"line (\d)", cli("train", "configs/noir.yaml")[2]) == ["2", "4", "6"]


def test_7_the_hint_runs(cli: Cli) -> None:
    _write_typos()
    assert cli(*commands(cli("train", "configs/noir.yaml")[2])[0]) == (0, "made configs/example.yaml\n", "")


# --- 8: two projects with a file of one name --------------------------------------------------


MISTAKE_8 = """\
error: 'data' is already an adapter, trained on other text (N of N documents in common).
hint:  adapterkit train data.txt --name data-N     (to add a version to it anyway: --name data)
"""


def _train_other_text(cli: Cli, tiny: list[str]) -> tuple[int, str, str]:
    for part in (SENTENCES[:3], SENTENCES[3:]):
        Path("data.txt").write_text("\n".join(part))
        result = cli("train", "data.txt", "--validation", "none", "--document", "line", *tiny)
    return result


@pytest.mark.usefixtures("here")
def test_8_another_text_under_a_name_that_is_taken(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    code, out, err = _train_other_text(cli, tiny)
    assert (code, out, masked(err, tmp_path)) == (1, "", MISTAKE_8)


@pytest.mark.usefixtures("here")
def test_8_several_other_documents_of_the_same_length_are_other_text(cli: Cli, tiny: list[str]) -> None:
    for part in (SENTENCES[:4], SENTENCES[4:]):
        Path("data.txt").write_text("\n".join(part))
        code, _, _ = cli("train", "data.txt", "--validation", "none", "--document", "line", *tiny)
    assert code == 1


@pytest.mark.usefixtures("here")
def test_8_the_hint_runs(cli: Cli, tiny: list[str]) -> None:
    hinted = commands(_train_other_text(cli, tiny)[2])[0]
    assert cli(*hinted, "--validation", "none", *tiny) == (0, "data-2@1\n", "")


# --- 10: an adapter of another base -----------------------------------------------------------


MISTAKE_10 = """\
error: stories@N was trained on tiny (DIGEST); this base is other (DIGEST), whose weights differ.
hint:  adapterkit generate stories@N "..." --base TINY     (or --force-base: on this base all the same)
"""
MISTAKE_10_SIZES = """\
error: stories@N was trained on tiny (DIGEST); this base is other (DIGEST), which has N layers, not N.
hint:  adapterkit generate stories@N "..." --base TINY     (--force-base can't help: the sizes differ)
"""


@pytest.fixture
def fitting(here: Registry, tiny_base: Path) -> Registry:
    """stories@1, whose weights fit the tiny base."""
    remember(Base("tiny", tiny_base))
    publish_form(here, tiny_base, "stories")
    return here


@pytest.fixture(params=[2, 3])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, str]:
    """A base of other weights, with as many layers or with more."""
    layers: int = request.param
    return layers, str(make_base(tmp_path / "other", seed=5, layers=layers))


def _on_other(cli: Cli, base: str, *more: str) -> tuple[int, str, str]:
    return cli("generate", "stories", "The sea", "--base", base, "--device", "cpu", *SHORT, *more)


def test_10_an_adapter_of_another_base(
    cli: Cli, fitting: Registry, other: tuple[int, str], tmp_path: Path, tiny_base: Path
) -> None:
    layers, base = other
    code, out, err = _on_other(cli, base)
    err = re.sub(r"\([0-9a-f]{8}\)", "(DIGEST)", err.replace(str(tiny_base), "TINY"))
    assert (code, out) == (1, "")
    assert masked(err, tmp_path) == (MISTAKE_10 if layers == 2 else MISTAKE_10_SIZES)


def test_10_the_hint_runs(cli: Cli, fitting: Registry, other: tuple[int, str]) -> None:
    assert cli(*commands(_on_other(cli, other[1])[2])[0], *SHORT)[0] == 0


def test_10_force_base_helps_where_the_sizes_fit_and_is_said(
    cli: Cli, fitting: Registry, other: tuple[int, str]
) -> None:
    layers, base = other
    code, _, err = _on_other(cli, base, "--force-base")
    told = "· stories@1 was made on another base than other and forced onto it (--force-base).\n"
    assert (code, err.endswith(told)) == ((0, True) if layers == 2 else (1, False))


# --- 12: another file ---------------------------------------------------------------------------


MISTAKE_12 = """\
error: stories@1 is damaged: adapter_model.safetensors is not the file that was published (sha256 DIGEST, should be DIGEST).
hint:  adapterkit import stories-1.adapter.safetensors, or make it again: adapterkit train --repeat stories@1
"""


def _damage(registry: Registry) -> None:
    path = registry["stories"].path / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    "words", [["generate", "stories", "The sea"], ["compare", "base", "stories"], ["pack", "stories"]]
)
def test_12_a_changed_file(cli: Cli, fitting: Registry, words: list[str]) -> None:
    _damage(fitting)
    code, out, err = cli(*words)
    assert (code, out) == (3, "")
    assert re.sub(r"\b[0-9a-f]{8}\b", "DIGEST", err) == MISTAKE_12


def test_12_the_hint_runs(cli: Cli, fitting: Registry) -> None:
    cli("pack", "stories")
    _damage(fitting)
    hinted = commands(cli("generate", "stories", "The sea", *SHORT)[2])[0]
    assert cli(*hinted)[0] == 0
    assert cli("generate", "stories", "The sea", *SHORT)[0] == 0


# --- next in line ------------------------------------------------------------------------------


@pytest.mark.usefixtures("stories")
def test_two_adapters_without_weights_are_answered_with_a_mix_and_compare(cli: Cli) -> None:
    code, out, err = cli("generate", "noir,shanty", "The sea")
    assert (code, out) == (2, "")
    assert commands(err) == [["compare", "noir", "shanty"]]
    assert '"noir=0.5,shanty=0.5"' in err


@pytest.mark.parametrize("verb", ["show", "delete", "verify", "pack", "list"])
@pytest.mark.usefixtures("stories")
def test_a_mix_where_versions_belong_is_answered_with_each_by_itself(cli: Cli, verb: str) -> None:
    code, out, err = cli(verb, "noir,shanty")
    assert (code, out, commands(err)) == (2, "", [[verb, "noir", "shanty"]])
    assert cli(*commands(err)[0])[0] == 0


@pytest.mark.usefixtures("stories")
def test_a_version_that_is_not_there_says_which_there_are_and_the_hint_runs(cli: Cli) -> None:
    for verb in ("show", "delete", "alias", "verify", "pack", "generate"):
        code, out, err = cli(verb, "stories@3", *(["prod"] if verb == "alias" else []))
        assert (code, out) == (1, "")
        assert err.startswith("error: stories has no version '3'; it has 1.\n")
        assert cli(*commands(err)[0])[0] == 0


@pytest.mark.usefixtures("stories")
def test_the_hint_for_two_adapters_runs(cli: Cli) -> None:
    hinted = commands(cli("generate", "noir,shanty", "The sea")[2])[0]
    assert cli(*hinted, *SHORT)[0] == 0


def test_train_of_a_version_names_its_recipe_and_its_name(cli: Cli) -> None:
    code, _, err = cli("train", "stories@3")
    assert (code, commands(err)) == (
        2,
        [["show", "stories@3", "--recipe"], ["train", "FOLDER-OR-FILE", "--name", "stories"]],
    )


def test_the_hints_for_a_version_are_understood(cli: Cli) -> None:
    said = [cli(*hinted)[2] for hinted in commands(cli("train", "stories@3")[2])]
    assert not any("No such option" in err for err in said)


def test_a_recipe_and_folder_of_one_name_is_refused_with_both_ways(cli: Cli) -> None:
    Path("wikitext").mkdir()
    code, _, err = cli("train", "wikitext")
    assert (code, commands(err)) == (2, [["train", "./wikitext"], ["train", "--recipe", "wikitext"]])


@pytest.mark.usefixtures("here")
def test_chat_without_any_adapter_says_what_to_do(cli: Cli) -> None:
    code, _, err = cli("chat")
    assert (code, commands(err)) == (1, [["demo"], ["chat", "base"]])
