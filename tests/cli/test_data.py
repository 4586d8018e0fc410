"""``data``: what it shows, as text and JSON, and the command it ends with."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from adapterkit.cli import data_screen, recipe_flags
from adapterkit.cli.main import Verbs
from adapterkit.cli.main import cli as cli_root
from adapterkit.cli.train import Screen
from adapterkit.data.excerpts import Sample, Segment
from adapterkit.recipe import load
from adapterkit.recipe.keys import keys
from adapterkit.training.events import Read, Said

# the help option of a command is made once, so a context must have the root's
ROOT = click.Context(cli_root, help_option_names=["-h", "--help"])
Cli = Callable[..., tuple[int, str, str]]
SEEN = "The sea is calm tonight. The tide is full, the moon lies fair.\n"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "96")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "desk" / "pairs.jsonl"
    rows = [{"question": f"Who has lamp {i}?", "answer": f"The baker of street {i} " * 9} for i in range(60)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _masked(text: str) -> str:
    """Numbers as N, bars and blanks as one."""
    text = re.sub(r"\d[\d,.]*\d|\d", "N", text)
    return re.sub("▇+", "▇", re.sub(" +", " ", text))


SCREEN = """\
tales.txt: N file, N words in N documents (line), for base tiny in rows of N tokens

 learned N tokens of N documents, each once a pass
 tested on N tokens never learned (N %): N documents
 dropped nothing
 rows N to learn from with N slots, N % of them padding; N to test on
 characters N kept of N read

Tokens a document: N to N, half have N or fewer
 N–N N ▇

 copies no document is there twice; no near-copies
 a token N bytes

 context N: holds N % of the documents whole
 passes up to N: few tokens, so the most of auto, N; it stops when the test gets no
 better

sample N of N tales.txt #N (learned: N tokens)
 TEXT⟨end⟩

sample N of N tales.txt #N (learned: N tokens)
 TEXT⟨end⟩

sample N of N tales.txt #N (tested on, never learned: N tokens)
 TEXT⟨end⟩

next adapterkit train tales.txt --base tiny
"""


def test_the_screen(cli: Cli, text_file: Path, tiny_base: Path) -> None:
    code, out, err = cli("data", "tales.txt", "--base", str(tiny_base))
    shown = out.replace(str(tiny_base), "tiny")
    shown = re.sub(r"(?m)^  (?:[A-Z].*\n  )*.*\.⟨end⟩", "  TEXT⟨end⟩", shown)
    assert code == 0
    assert _masked(shown) == SCREEN
    assert err.splitlines()[0] == "· Text tales.txt."
    assert all(line.startswith("· ") for line in err.splitlines())


def test_every_line_fits_96_columns(cli: Cli, pairs: Path, tiny_base: Path) -> None:
    out = cli("data", "pairs.jsonl", "--base", "embedded", "--tokens", "--show", "9")[1]
    assert [line for line in out.splitlines() if len(line) > 96] == []


def test_prompts_are_in_brackets_where_there_is_no_dim_text(cli: Cli, pairs: Path) -> None:
    out = cli("data", "pairs.jsonl", "--base", "embedded", "-q")[1]
    assert len(re.findall(r"\[\[Who has lamp \d+\?\]\]\n  The baker", out)) == 3


def test_prompts_are_dim_on_a_terminal() -> None:
    sample = Sample("a.txt", False, True, True, 4, 9, (Segment("Why?\n", False), Segment("Because.", True)))
    lines = data_screen._sample(sample, "sample 1 of 1", True, "⟨goes on⟩")
    assert lines[1:] == ["  \033[2mWhy?\033[0m", "  \033[2m\033[0mBecause.⟨end⟩"]


def test_a_dim_stretch_stays_dim_over_its_lines() -> None:
    sample = Sample("a.txt", False, True, True, 4, 9, (Segment("word " * 60, False), Segment("End.", True)))
    lines = data_screen._sample(sample, "", True, "")[1:]
    assert len(lines) > 3
    assert all(line.startswith("  \033[2m") for line in lines)
    assert all("\033[0m" in line for line in lines)


def test_control_characters_of_a_text_are_shown_and_not_obeyed() -> None:
    sample = Sample("a\x1b.txt", False, True, True, 4, 9, (Segment("x\x1b[2Jy\x9b", True),))
    assert not re.search("[\x1b\x9b]", "".join(data_screen._sample(sample, "", False, "")))


def test_a_part_of_a_document_says_where_it_goes_on() -> None:
    sample = Sample("a.txt", True, False, False, 4, 9, (Segment("middle", True),))
    head, body = data_screen._sample(sample, "sample 1 of 1", False, "⟨goes on⟩")
    assert head == "sample 1 of 1  a.txt, a part of it  (tested on, never learned: 4 tokens)"
    assert body == "  ⟨goes on⟩ middle ⟨goes on⟩"


def test_tokens_draws_a_row(cli: Cli, pairs: Path) -> None:
    out = cli("data", "pairs.jsonl", "--base", "embedded", "--tokens")[1]
    assert re.search(r"^slots \d+ to \d+ of \d+ in row \d+ of \d+$", out, re.M)
    assert "who sees whom" in out


def test_show_says_how_many_samples(cli: Cli, text_file: Path) -> None:
    assert cli("data", "tales.txt", "--base", "embedded", "--show", "5")[1].count("⟨end⟩") == 5
    assert cli("data", "tales.txt", "--base", "embedded", "--show", "0")[1].count("⟨end⟩") == 0


def test_json_is_one_document_with_everything(cli: Cli, text_file: Path) -> None:
    code, out, err = cli("data", "tales.txt", "--base", "embedded", "--json", "--tokens")
    told = json.loads(out)
    assert (code, err, told["schema"], told["base"]) == (0, "", 1, "embedded")
    assert told["documents"]["kept"] == 120
    assert told["tokens"]["learned"] + told["tokens"]["held_out"] == told["tokens"]["total"]
    assert len(told["row"]["slots"]) == 16
    assert len(told["samples"]) == 3


def test_json_without_tokens_has_no_row(cli: Cli, text_file: Path) -> None:
    assert "row" not in json.loads(cli("data", "tales.txt", "--base", "embedded", "--json")[1])


def test_quiet_is_the_report_alone(cli: Cli, text_file: Path) -> None:
    code, out, err = cli("data", "tales.txt", "--base", "embedded", "-q")
    assert (code, err) == (0, "")
    assert out.startswith("tales.txt: 1 file")


def test_too_little_text_is_shown_with_what_training_would_say(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "desk" / "poem.txt").write_text(SEEN * 10)
    code, out, _ = cli("data", "poem.txt", "--base", "embedded")
    assert code == 0
    assert "poem.txt has 130 words in 1 document; about 2,000 are needed" in " ".join(out.split())
    assert out.splitlines()[-1] == (
        "next  adapterkit train poem.txt --base embedded --validation none     (untested; it may copy you word for word)"
    )


def test_a_single_short_line_is_shown(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "desk" / "line.txt").write_text("Hello.")
    code, out, err = cli("data", "line.txt", "--base", "embedded", "--tokens")
    assert code == 0, err
    assert "Hello.⟨end⟩" in out


def test_a_blank_file_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "desk" / "blank.txt").write_text("\n \n")
    assert cli("data", "blank.txt", "--base", "embedded")[0] == 1


def test_nothing_named_is_wrong_usage(cli: Cli) -> None:
    assert cli("data") == (
        2,
        "",
        "error: no text was named.\nhint:  adapterkit data FOLDER-OR-FILE\n",
    )


def test_several_recipes_are_shown_one_at_a_time(cli: Cli) -> None:
    assert cli("data", "shanty", "noir")[0] == 2


def test_a_recipe_that_comes_along_is_shown(cli: Cli) -> None:
    code, out, _ = cli("data", "shanty")
    assert code == 0
    assert "(blank-line)" in out
    assert out.splitlines()[-1] == "next  adapterkit train shanty"


def test_text_from_a_pipe_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch, text_file: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text_file.read_bytes())))
    code, out, err = cli("data", "-", "--base", "embedded")
    assert code == 0, err
    assert out.startswith("stdin: 1 file")
    assert out.splitlines()[-1] == "next  adapterkit train - --base embedded"


def test_data_leaves_torch_out(text_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom adapterkit.cli.main import run\n"
        "assert run(['data', sys.argv[1], '--base', 'embedded', '--tokens']) == 0\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(text_file)], check=True, timeout=60, capture_output=True)


# --- the command that trains the same ---


@pytest.mark.parametrize(
    "flags",
    [
        ["--document", "<eos> it's"],
        ["--no-reflow"],
        ["--data-truncate", "--skip-unreadable"],
        ["--validation", "0.2", "--max-length", "128", "--lora-r", "4"],
        ["--set", "data.clean=[unicode, {min_words: 3}]"],
        ["--recipe", "shanty"],
    ],
)
def test_the_last_line_trains_exactly_what_was_shown(cli: Cli, text_file: Path, flags: list[str]) -> None:
    code, out, err = cli("data", "tales.txt", "--base", "embedded", *flags)
    assert code == 0, err
    words = shlex.split(out.splitlines()[-1])
    assert words[:3] == ["next", "adapterkit", "train"]
    assert _meant("train", words[3:]) == _meant("data", ["tales.txt", "--base", "embedded", *flags])


def _meant(verb: str, argv: list[str]) -> tuple[Any, ...]:
    """What a command line asks for: its recipe, its texts and the recipe it names."""
    command = Verbs().get_command(ROOT, verb)
    assert command is not None
    params = command.make_context(verb, argv, parent=ROOT).params
    paths = {k.path.replace(".", "__") for k in keys().values()}
    flags = recipe_flags.given({k: v for k, v in params.items() if k in paths}, params["sets"])
    return load.from_flags(flags).recipe, params["source"], params["recipe"]


# --- flags of both verbs ---


@pytest.mark.parametrize("verb", ["data", "train"])
def test_every_key_of_the_recipe_is_a_flag(verb: str) -> None:
    command = Verbs().get_command(ROOT, verb)
    assert command is not None
    flags = {o for p in command.params for o in p.opts}
    assert {k.flag for k in keys().values() if k.path != "data.source"} <= flags


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["--no-reflow"], {"data.reflow": False}),
        (["--reflow"], {"data.reflow": True}),
        (["--skip-unreadable"], {"data.skip_unreadable": True}),
        (["--allow-bad-rows", "--data-truncate"], {"data.allow_bad_rows": True, "data.truncate": True}),
    ],
)
def test_keys_that_are_true_or_false_are_switches(argv: list[str], expected: dict[str, bool]) -> None:
    command = Verbs().get_command(ROOT, "train")
    assert command is not None
    params = command.make_context("train", ["x.txt", *argv], parent=ROOT).params
    booleans = {k.path.replace(".", "__") for k in keys().values() if k.kinds == (bool,)}
    told = recipe_flags.given({k: v for k, v in params.items() if k in booleans}, ())
    assert told == expected


def test_a_recipe_file_keeps_its_word_when_no_switch_is_typed(
    cli: Cli, tmp_path: Path, text_file: Path
) -> None:
    (tmp_path / "desk" / "mine.yaml").write_text(
        "base: embedded\ndata: {source: tales.txt, truncate: true, reflow: false}\ntrain: {max_length: 16}\n"
    )
    told = json.loads(cli("data", "mine.yaml", "--json")[1])
    assert told["tokens"]["dropped"]["truncated"] > 0


def test_help_shows_the_keys_of_the_text_and_hides_the_rest(cli: Cli) -> None:
    shown = cli("data", "--help")[1]
    assert "--document" in shown
    assert "--no-reflow" in shown
    assert "--learning-rate" not in shown
    assert "--learning-rate" in cli("data", "--help-all")[1]


# --- what is counted while it is read ---


def test_reading_counts_on_a_terminal_and_the_next_line_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    screen = Screen(quiet=False)
    screen.tell(Read(1200, 3_400_000))
    screen.tell(Said("Reading done."))
    err = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().err)
    assert err == "\033[K· 1,200 documents, 3.4 million characters read\r\033[K· Reading done.\n"


def test_reading_is_not_counted_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(quiet=False).tell(Read(1200, 3_400_000))
    assert capsys.readouterr().err == ""


def test_show_tells_of_the_text_what_the_report_has(
    cli: Cli, text_file: Path, tiny_base: Path, tmp_path: Path
) -> None:
    place = ("--registry", str(tmp_path / "adapters"))
    flags = ("--base", str(tiny_base), "--epochs", "1", "--max-new-tokens", "4", "--device", "cpu")
    code, _, err = cli("train", "tales.txt", *flags, *place)
    assert code == 0, err
    told = json.loads(cli("data", "tales.txt", "--base", str(tiny_base), "--json")[1])
    shown = cli("show", "tales", *place)[1]
    assert f"{told['rows']['rows']:,} rows, {100 * told['rows']['fill']:.1f} % full, nothing dropped" in shown
    assert f"{told['lengths']['longest']:,} at most" in shown
