"""The root of the command line: exit codes, unknown verbs, errors as text and JSON, the start screen."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import adapterkit
from adapterkit import errors, files
from adapterkit.cli import keep
from adapterkit.cli.main import MEANT, VERBS
from adapterkit.errors import AdapterKitError, NotFound
from adapterkit.registry import place
from adapterkit.registry.store import Registry
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]
VERB_NAMES = [verb for verbs in VERBS.values() for verb in verbs]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``adapterkit list`` fail in a chosen way."""

    def arm(error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(keep, "Registry", fail)

    return arm


def test_a_command_that_works_ends_with_0(cli: Cli) -> None:
    assert cli("list")[0] == 0


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NotFound, 1),
        (errors.RecipeError, 1),
        (errors.UsageProblem, 2),
        (errors.Damaged, 3),
        (errors.CheckFailed, 3),
        (errors.Unreachable, 4),
        (errors.OutOfSpace, 4),
    ],
)
def test_an_error_ends_with_the_exit_code_of_its_kind(
    cli: Cli, raising: Callable[[BaseException], None], kind: type[AdapterKitError], code: int
) -> None:
    raising(kind("it broke", "mend it"))
    assert cli("list") == (code, "", "error: it broke\nhint:  mend it\n")


def test_an_error_without_a_hint_is_one_line(cli: Cli, raising: Callable[[BaseException], None]) -> None:
    raising(NotFound("it broke"))
    assert cli("list")[2] == "error: it broke\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EOFError(), click.Abort()])
def test_an_interrupt_ends_with_130(
    cli: Cli, raising: Callable[[BaseException], None], error: BaseException
) -> None:
    raising(error)
    code, out, err = cli("list")
    assert (code, out, err.strip()) == (130, "", "stopped.")


def test_a_bug_of_ours_ends_with_70_a_traceback_and_where_to_go(
    cli: Cli, raising: Callable[[BaseException], None]
) -> None:
    raising(ZeroDivisionError("ours"))
    code, out, err = cli("list")
    assert (code, out) == (70, "")
    assert err.startswith("Traceback")
    assert "ZeroDivisionError: ours" in err
    assert err.splitlines()[-1].endswith("adapterkit doctor")


def test_a_file_of_another_account_is_no_bug_of_ours(
    cli: Cli, raising: Callable[[BaseException], None]
) -> None:
    raising(PermissionError(errno.EACCES, "Permission denied", "/theirs"))
    told = "error: /theirs may not be opened or changed (Permission denied).\nhint:  use an account that may, or other modes\n"
    assert cli("list") == (1, "", told)


def test_a_full_disk_is_told_with_its_own_exit_code(
    cli: Cli, raising: Callable[[BaseException], None]
) -> None:
    raising(OSError(errno.ENOSPC, "No space left on device"))
    code, _, err = cli("list")
    assert (code, err.startswith("error: the disk is full: ")) == (4, True)


def test_a_reader_that_leaves_a_pipe_is_no_error() -> None:
    code = "import adapterkit.cli.keep as k, adapterkit.cli.main as m\ndef gone(*_): raise BrokenPipeError\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "k.Registry = gone\nm.main(['list'])"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("list", "--no-such"), "No such option"),
        (("show",), "Missing argument"),
        (("list", "--sort", "beauty"), "'beauty' is not one of"),
        (("--no-such",), "No such option"),
        (("generate", "base", "-n", "0"), "0 is not in the range"),
        (("generate", "base", "--seed", "x"), "not a valid int"),
        (("train", "x.txt", "--set", "lora.r"), "--set 'lora.r' has no value"),
        (("train",), "nothing to learn from was named"),
        (("compare", "base"), "compare needs two adapters"),
        (("generate",), "no adapter was named"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_was_wrong(cli: Cli, argv: tuple[str, ...], told: str) -> None:
    code, out, err = cli(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err


def test_the_hint_of_a_wrong_option_is_the_help_of_the_verb(cli: Cli) -> None:
    assert cli("list", "--no-such")[2].endswith("hint:  adapterkit list --help\n")


@pytest.mark.parametrize("verb", sorted(w for w, m in MEANT.items() if m.split()[0] in VERB_NAMES))
def test_a_known_word_of_others_is_answered_with_ours(cli: Cli, verb: str) -> None:
    assert cli(verb, "x") == (
        2,
        "",
        f"error: there is no command '{verb}'.\nhint:  adapterkit {MEANT[verb]}{'' if MEANT[verb][-1] == ':' else ' '}x\n",
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("rm", "delete"), ("remove", "delete"), ("retire", "delete"), ("finetune", "train"), ("run", "chat"),
        ("sample", "generate"), ("complete", "generate"), ("versions", "list"), ("ls", "list"), ("mix", "blend"),
        ("tag", "alias"), ("resume", "train --resume"), ("clean", "gc"), ("pull", "import hub:"),
        ("publish", "push"), ("upload", "push"), ("undelete", "restore"), ("mv", "rename"), ("inspect", "show"),
        ("info", "show"), ("history", "log"), ("fsck", "verify"), ("prune", "gc"), ("archive", "pack"), ("save", "pack"),
        ("download", "import hub:"),
    ],
)  # fmt: skip
def test_the_words_of_others_are_those_of_the_design(theirs: str, ours: str) -> None:
    assert MEANT[theirs] == ours


def test_no_word_of_others_is_one_of_ours() -> None:
    assert set(MEANT).isdisjoint(VERB_NAMES)


def test_the_command_named_for_resume_is_understood(cli: Cli) -> None:
    hint = cli("resume")[2].split("hint:  adapterkit ")[1].split()
    assert "No such option" not in cli(*hint)[2]


def test_a_known_word_for_what_is_still_to_come_is_told_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEANT, "convert", "export")
    told = "error: there is no command 'convert', and 'export' is not there yet.\nhint:  adapterkit --help\n"
    assert cli("convert", "x") == (2, "", told)


def test_a_slip_in_a_verb_names_the_nearest(cli: Cli) -> None:
    assert cli("genrate")[2].endswith("hint:  adapterkit generate\n")


def test_a_verb_like_no_other_points_to_the_list(cli: Cli) -> None:
    code, _, err = cli("xyzzy")
    assert (code, err) == (2, "error: there is no command 'xyzzy'.\nhint:  all commands: adapterkit --help\n")


# --- warnings of the library -------------------------------------------------------


@pytest.fixture
def without_fsync(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Registry:
    """A registry on a file system that can't write folders through, with noir@1."""
    publish(registry, "noir")
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    files._say_once.cache_clear()
    return registry


@pytest.mark.parametrize("flag", [[], ["-q"], ["--json"]])
@pytest.mark.usefixtures("without_fsync")
def test_a_warning_is_a_dim_line_on_stderr_once(cli: Cli, flag: list[str]) -> None:
    code, _, err = cli("delete", "noir", *flag)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("· this file system can't write folders through to the disk (")


@pytest.mark.usefixtures("without_fsync")
def test_a_second_command_in_the_same_process_does_not_say_it_twice(cli: Cli) -> None:
    cli("delete", "noir")
    assert cli("restore", "noir")[2] == ""


def test_a_handler_of_ones_own_is_left_as_it_was(cli: Cli) -> None:
    log = logging.getLogger("adapterkit")
    before = (list(log.handlers), log.propagate)
    cli("list")
    assert (log.handlers, log.propagate) == before


# --- --json ---------------------------------------------------------------------


def test_under_json_an_error_is_one_document_on_stderr(cli: Cli) -> None:
    code, out, err = cli("show", "noir", "--json")
    told = json.loads(err)["error"]
    assert (code, out) == (1, "")
    assert (told["code"], told["details"]["name"]) == ("not-found", "noir")
    assert set(told) == {"code", "message", "hint", "details"}


def test_under_json_wrong_usage_is_a_document_too(cli: Cli) -> None:
    code, _, err = cli("list", "--json", "--no-such")
    assert (code, json.loads(err)["error"]["code"]) == (2, "usage")


def test_under_json_the_finer_code_is_told(cli: Cli) -> None:
    assert (
        json.loads(cli("train", "gone.txt", "--json")[2].splitlines()[-1])["error"]["code"] == "no-such-text"
    )


def test_under_json_the_problems_of_a_recipe_are_a_list(cli: Cli) -> None:
    Path("x.yaml").write_text("lora: {rank: 4, r: 0}")
    told = json.loads(cli("train", "x.yaml", "--json")[2])["error"]
    assert (told["code"], len(told["details"]["problems"])) == ("recipe", 2)


# --- screens ----------------------------------------------------------------------


START = f"""\
AdapterKit {adapterkit.__version__}   one GPT-2, many small styles
  adapterkit demo                    a minute, no download
  adapterkit train FOLDER-OR-FILE    learn a style from your text (.txt .md .csv .jsonl ...)
  adapterkit chat NAME               write with it
"""


def test_the_start_screen_is_three_commands_and_the_way_to_all(cli: Cli) -> None:
    assert cli() == (0, START + "All commands: adapterkit --help\n", "")


def test_the_start_screen_counts_the_adapters_here(cli: Cli, tmp_path: Path) -> None:
    place.create(tmp_path / "desk" / "adapters")
    store = Registry()
    publish(store, "noir")
    publish(store, "noir", seed=1)
    publish(store, "shanty")
    here = f"Here: 2 adapters in {tmp_path}/desk/adapters: adapterkit list\n"
    assert cli()[1] == START + here + "All commands: adapterkit --help\n"


def test_the_start_screen_says_one_adapter_of_one(cli: Cli) -> None:
    publish(Registry(), "noir")
    assert "Here: 1 adapter in ~/.adapterkit/adapters: adapterkit list\n" in cli()[1]


def test_the_start_screen_goes_on_beside_a_damaged_version(cli: Cli) -> None:
    (path := publish(Registry(), "noir").path / "manifest.json").chmod(0o644)
    path.write_text("{")
    publish(Registry(), "shanty")
    assert (
        cli()[1]
        == START
        + "Here: 1 adapter in ~/.adapterkit/adapters: adapterkit list\nAll commands: adapterkit --help\n"
    )


def test_the_start_screen_creates_nothing(cli: Cli, tmp_path: Path) -> None:
    cli()
    assert list((tmp_path / "desk").iterdir()) == list((tmp_path / "home").iterdir()) == []


def test_help_lists_the_verbs_by_group_in_order(cli: Cli) -> None:
    out = cli("--help")[1]
    headings = [line.rstrip(":") for line in out.splitlines() if line.endswith(":")]
    verbs = [
        line.split()[0]
        for line in out.splitlines()
        if line.startswith("  ") and line.split()[0] in VERB_NAMES
    ]
    assert [h for h in headings if h in VERBS] == [
        "Start",
        "Make",
        "Write",
        "Keep",
        "Share",
        "Combine and convert",
    ]
    assert verbs == VERB_NAMES


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_ends_with_0(cli: Cli, flag: str) -> None:
    code, out, err = cli("train", flag)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: adapterkit train")


def test_help_all_shows_the_flags_that_help_leaves_out(cli: Cli) -> None:
    short, full = cli("train", "--help")[1], cli("train", "--help-all")[1]
    assert "--grad-clip" not in short
    assert "--grad-clip" in full


def test_help_all_leaves_the_next_help_short(cli: Cli) -> None:
    cli("train", "--help-all")
    assert "--grad-clip" not in cli("train", "--help")[1]


@pytest.mark.parametrize("verb", VERB_NAMES)
def test_help_all_is_everywhere(cli: Cli, verb: str) -> None:
    assert cli(verb, "--help-all")[0] == 0


def test_version(cli: Cli) -> None:
    assert cli("--version")[1] == f"AdapterKit, version {adapterkit.__version__}\n"
