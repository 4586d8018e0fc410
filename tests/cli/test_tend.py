"""``alias``, ``note``, ``rename``, ``delete``, ``restore``: what they say, that what they say to undo it does, and refusals."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.registry import runs
from adapterkit.registry.runs import Run
from adapterkit.registry.store import Registry
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """noir@1, noir@2 and shanty@1, also for the command line."""
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    publish(registry, "noir", note="first try")
    publish(registry, "noir", seed=1)
    publish(registry, "shanty")
    return registry


def undo(cli: Cli, told: str) -> None:
    """Type what the output says."""
    for command in re.findall(r"(?:undo.*?: |&& )adapterkit (.*?)(?= &&|$)", told, re.MULTILINE):
        assert cli(*shlex.split(command))[0] == 0, command


def hinted(err: str) -> list[str]:
    """The first command of a hint."""
    found = re.search(r"hint:  .*?adapterkit (.*?)(?=  |, or|$)", err, re.MULTILINE)
    assert found, err
    return shlex.split(found[1])


# --- alias ----------------------------------------------------------------------


def test_an_alias_is_set_and_said_how_to_undo(cli: Cli, here: Registry) -> None:
    told = "noir@prod is noir@2     undo: adapterkit alias --remove noir@prod\n"
    assert cli("alias", "noir", "prod") == (0, told, "")
    assert here["noir@prod"] == here["noir@2"]


def test_the_undo_of_a_new_alias_takes_it_away(cli: Cli, here: Registry) -> None:
    undo(cli, cli("alias", "noir", "prod")[1])
    assert here.aliases("noir") == {}


def test_an_alias_that_moves_says_where_it_was(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    assert cli("alias", "noir@2", "prod")[1].startswith("noir@prod is noir@2 now, it was noir@1     undo: ")


def test_the_undo_of_a_move_moves_it_back(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    undo(cli, cli("alias", "noir@2", "prod")[1])
    assert here.aliases("noir") == {"prod": 1}


def test_an_alias_that_is_so_already_says_so(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    assert cli("alias", "noir@1", "prod")[1] == "noir@prod is noir@1 already\n"


def test_alias_of_a_name_lists_its_own_and_the_computed(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    told = "noir@prod is noir@1\nnoir@latest is noir@2 (computed)\nnoir@best is noir@2 (computed)\n"
    assert cli("alias", "noir") == (0, told, "")


def test_alias_as_json(cli: Cli, here: Registry) -> None:
    assert json.loads(cli("alias", "noir@1", "prod", "--json")[1]) == {
        "schema": 1, "alias": "noir@prod", "ref": "noir@1", "before": None
    }  # fmt: skip
    listed = json.loads(cli("alias", "noir", "--json")[1])
    assert (listed["aliases"], listed["computed"]) == ({"prod": 1}, {"latest": 2, "best": 2})
    assert json.loads(cli("alias", "--remove", "noir@prod", "--json")[1])["removed"] == ["noir@prod"]


@pytest.mark.parametrize("alias", ["best", "latest", "Prod", "deadbeef", "3"])
def test_what_can_be_no_alias_is_refused(cli: Cli, here: Registry, alias: str) -> None:
    code, out, err = cli("alias", "noir", alias)
    assert (code, out) == (2, "")
    assert f"{alias!r} " in err


def test_an_alias_that_is_not_there_can_not_be_removed_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    code, out, err = cli("alias", "--remove", "noir@prd")
    assert (code, out) == (1, "")
    assert err.startswith("error: noir has no alias 'prd'; it has prod.")
    assert cli(*hinted(err))[0] == 0


def test_of_two_aliases_none_is_removed_when_one_is_not_there(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    assert cli("alias", "--remove", "noir@prod", "shanty@prod")[0] == 1
    assert here.aliases("noir") == {"prod": 1}


def test_remove_without_an_alias_names_one(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    code, _, err = cli("alias", "--remove", "noir")
    assert (code, hinted(err)) == (2, ["alias", "--remove", "noir@prod"])


def test_aliases_of_an_unknown_name_name_the_nearest(cli: Cli, here: Registry) -> None:
    code, _, err = cli("alias", "shnty")
    assert (code, hinted(err)) == (1, ["alias", "shanty"])


# --- note -----------------------------------------------------------------------


def test_a_note_is_kept_and_its_undo_brings_the_old_one_back(cli: Cli, here: Registry) -> None:
    code, out, _ = cli("note", "noir@1", "the one with rain")
    assert (code, here["noir@1"].note) == (0, "the one with rain")
    assert out == "noir@1: the one with rain     undo: adapterkit note noir@1 'first try'\n"
    undo(cli, out)
    assert here["noir@1"].note == "first try"


def test_words_without_quotes_are_one_note(cli: Cli, here: Registry) -> None:
    cli("note", "noir", "the", "one", "with", "rain")
    assert here["noir@2"].note == "the one with rain"


def test_an_empty_note_takes_it_away(cli: Cli, here: Registry) -> None:
    out = cli("note", "noir@1", "")[1]
    assert (here["noir@1"].note, out.split("     ")[0]) == ("", "noir@1: no note now")


def test_no_words_are_no_note_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    code, _, err = cli("note", "noir")
    assert (code, cli(*hinted(err))[0]) == (2, 0)


def test_note_as_json(cli: Cli, here: Registry) -> None:
    told = json.loads(cli("note", "noir@1", "x", "--json")[1])
    assert told == {"schema": 1, "ref": "noir@1", "note": "x", "before": "first try"}


# --- rename -----------------------------------------------------------------------


def test_rename_says_what_went_along(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@1", "prod")
    told = (
        "noir is harbour now, with 2 versions, its aliases prod and its log     "
        "undo: adapterkit rename harbour noir\n"
    )
    assert cli("rename", "noir", "harbour") == (0, told, "")
    assert here["harbour@prod"].note == "first try"


def test_the_undo_of_a_rename_renames_back(cli: Cli, here: Registry) -> None:
    undo(cli, cli("rename", "noir", "harbour")[1])
    assert here.names() == ["noir", "shanty"]


def test_an_unfinished_run_keeps_the_old_name_which_is_said(cli: Cli, here: Registry) -> None:
    _begin_run(here, "noir")
    err = cli("rename", "noir", "harbour")[2]
    assert err == "· 1 unfinished run will still publish as noir: adapterkit train --resume noir-aaaaaa\n"


def _begin_run(store: Registry, name: str) -> Run:
    made_from = "a" * 64
    run = Run(
        name=name, made_from=made_from, text="", given={}, recipe={}, origins={}, folder=None, source="x.txt",
        note="", is_fresh=False, after=0, begun=runs.now(), saved=runs.now(), steps=10,
        path=runs.place(store.path, name, made_from),
    )  # fmt: skip
    return run.write(step=5)


def test_rename_as_json(cli: Cli, here: Registry) -> None:
    told = json.loads(cli("rename", "noir", "harbour", "--json")[1])
    assert (told["name"], told["before"]) == ("harbour", "noir")
    assert told["versions"] == ["harbour@1", "harbour@2"]


def test_rename_to_a_name_that_is_taken_is_refused(cli: Cli, here: Registry) -> None:
    code, _, err = cli("rename", "noir", "shanty")
    assert (code, "shanty" in err) == (1, True)


@pytest.mark.parametrize(("new", "suggested"), [("Big Storm!", "big-storm"), ("best", "best-texts")])
def test_rename_to_what_is_no_name_suggests_one_and_the_hint_runs(
    cli: Cli, here: Registry, new: str, suggested: str
) -> None:
    code, _, err = cli("rename", "noir", new)
    assert (code, hinted(err)) == (2, ["rename", "noir", suggested])
    assert cli(*hinted(err))[0] == 0


def test_rename_of_one_version_is_refused_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    code, _, err = cli("rename", "noir@1", "harbour")
    assert (code, hinted(err)) == (2, ["rename", "noir", "harbour"])
    assert cli(*hinted(err))[0] == 0


def test_the_old_name_leads_to_the_new_with_the_command_as_typed(cli: Cli, here: Registry) -> None:
    cli("rename", "noir", "harbour")
    err = cli("note", "noir@1", "x y")[2]
    assert err.startswith("error: 'noir' is called 'harbour' now.")
    assert hinted(err) == ["note", "harbour@1", "x y"]


# --- delete and restore --------------------------------------------------------------


DELETED = """\
deleted noir@2     undo within 7 days: adapterkit restore noir@2
'noir' now means noir@1
"""


def test_delete_of_a_name_hides_its_newest_and_says_what_it_means_now(cli: Cli, here: Registry) -> None:
    assert cli("delete", "noir") == (0, DELETED, "")
    assert [v.ref for v in here.versions("noir")] == ["noir@1"]


def test_the_undo_of_a_deletion_restores_it(cli: Cli, here: Registry) -> None:
    undo(cli, cli("delete", "noir")[1])
    assert [v.ref for v in here.versions("noir")] == ["noir@1", "noir@2"]


def test_several_are_deleted_at_once_each_only_once(cli: Cli, here: Registry) -> None:
    assert cli("delete", "noir@1", "noir@1", "shanty", "-q")[1] == "noir@1\nshanty@1\n"


def test_when_the_last_is_gone_it_is_said(cli: Cli, here: Registry) -> None:
    assert cli("delete", "shanty")[1].splitlines()[-1] == "'shanty' has no version left"


def test_of_several_none_is_deleted_when_one_is_unknown(cli: Cli, here: Registry) -> None:
    assert cli("delete", "noir@1", "noir@7")[0] == 1
    assert len(here.versions()) == 3


def test_of_several_none_is_deleted_when_an_alias_is_in_the_way(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@2", "prod")
    code, _, err = cli("delete", "noir@1", "shanty", "noir@2")
    assert (code, len(here.versions())) == (1, 3)
    assert err.startswith("error: noir@2 is noir@prod")


def test_the_hint_for_an_alias_in_the_way_runs_and_its_undo_brings_both_back(
    cli: Cli, here: Registry
) -> None:
    cli("alias", "noir@2", "prod")
    code, out, _ = cli(*hinted(cli("delete", "noir@2")[2]))
    assert (code, here.aliases("noir")) == (0, {})
    assert out.startswith("deleted noir@2, and noir@prod     undo within 7 days: ")
    undo(cli, out.splitlines()[0])
    assert here["noir@prod"].ref == "noir@2"


def test_delete_as_json(cli: Cli, here: Registry) -> None:
    cli("alias", "noir@2", "prod")
    digest = here["noir@2"].digest
    told = json.loads(cli("delete", "noir", "--force", "--json")[1])
    assert told["deleted"] == [{"ref": "noir@2", "digest": digest, "aliases_removed": ["prod"]}]
    assert told["undo_days"] == 7


def test_a_mix_is_not_deleted_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    code, _, err = cli("delete", "noir,shanty")
    assert (code, hinted(err)) == (2, ["delete", "noir", "shanty"])
    assert cli(*hinted(err))[0] == 0


@pytest.mark.parametrize("verb", ["delete", "restore", "verify", "pack", "show"])
def test_the_base_is_no_version(cli: Cli, here: Registry, verb: str) -> None:
    code, _, err = cli(verb, "base")
    assert (code, "'base' is plain GPT-2" in err) == (2, True)


def test_a_name_misspelt_keeps_the_rest_of_the_command(cli: Cli, here: Registry) -> None:
    err = cli("delete", "noir@1", "shnty", "--force")[2]
    assert hinted(err) == ["delete", "noir@1", "shanty", "--force"]


def test_a_digest_names_what_is_deleted(cli: Cli, here: Registry) -> None:
    assert cli("delete", f"noir@{here['noir@1'].digest[:9]}", "-q")[1] == "noir@1\n"


RESTORED = """\
restored noir@2     undo: adapterkit delete noir@2
'noir' now means noir@2
"""


def test_restore_of_a_name_brings_back_what_was_deleted_last(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    assert cli("restore", "noir") == (0, RESTORED, "")


def test_the_undo_of_a_restoration_deletes_again(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    undo(cli, cli("restore", "noir")[1])
    assert [v.ref for v in here.versions("noir")] == ["noir@1"]


def test_of_several_none_is_restored_when_one_was_not_deleted(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    code, _, err = cli("restore", "noir@2", "shanty@1")
    assert (code, err.splitlines()[0]) == (1, "error: shanty@1 was not deleted.")
    assert len(here.versions("noir")) == 1


def test_a_deleted_version_names_its_restoration_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    code, _, err = cli("show", "noir@2")
    assert (code, hinted(err)) == (1, ["restore", "noir@2"])
    assert cli(*hinted(err))[0] == 0


def test_what_gc_has_taken_is_not_restored(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    cli("gc", "--now")
    code, _, err = cli("restore", "noir@2")
    assert (code, err.startswith("error: noir@2 can't be restored: gc has taken its files")) == (1, True)


def test_restore_as_json(cli: Cli, here: Registry) -> None:
    cli("delete", "noir@2")
    only = json.loads(cli("restore", "noir", "--json")[1])["restored"][0]
    assert (only["ref"], Path(only["path"])) == ("noir@2", here["noir@2"].path)
