"""``list`` and ``show``: what they print, as text and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapterkit.cli.output import age, columns, gain, signed, table
from adapterkit.cli.page import recipe_file
from adapterkit.recipe import load
from adapterkit.registry import index, version
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.forms import import_manifest, publish_by
from tests.versions import publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of the test, also for the command line."""
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    return registry


def masked(text: str, registry: Registry) -> str:
    """Digests and sizes as they are drawn, not as they are."""
    text = text.replace(str(registry.path), "DIR")
    return re.sub(r"\b[0-9a-f]{8}\b", "DDDDDDDD", re.sub(r"\d+\.\d kB", "N.N kB", text))


def test_an_empty_registry_says_what_to_do(cli: Cli, here: Registry) -> None:
    assert cli("list") == (
        0,
        f"No adapters in {here.path} yet. Train one: adapterkit train FOLDER-OR-FILE\n",
        "",
    )


def test_listing_creates_nothing(cli: Cli, tmp_path: Path) -> None:
    cli("list")
    assert list((tmp_path / "home").iterdir()) == []


LIST = """\
NAME     VERSION       NOTE        BASE   UNSEEN TEXT           SIZE     MADE   ALIASES
noir     2  DDDDDDDD   more text   tiny   33.1 → 18.2  −45 %   N.N kB   now    best
shanty   1  DDDDDDDD               tiny   not tested            N.N kB   now
2 adapters, 3 versions (--all), N.N kB in DIR
"""


def test_list_shows_the_newest_version_of_each_name(cli: Cli, here: Registry) -> None:
    publish(here, "noir", loss=3.0)
    publish(here, "noir", loss=2.9, seed=1, note="more text")
    publish(here, "shanty", loss=None)
    code, out, err = cli("list")
    assert (code, err) == (0, "")
    assert re.sub(" +", " ", masked(out, here)) == re.sub(" +", " ", LIST)


def test_list_says_when_an_older_version_is_better(cli: Cli, here: Registry) -> None:
    publish(here, "noir", loss=2.5)
    publish(here, "noir", loss=2.9, seed=1)
    assert "best is @1\n" in cli("list")[1]


def test_list_all_shows_every_version(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "noir", seed=1)
    assert cli("list", "--all", "-q")[1] == "noir@1\nnoir@2\n"


def test_list_quiet_is_refs_alone(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    publish(here, "noir")
    assert cli("list", "-q")[1] == "noir@1\nshanty@1\n"


def test_list_quiet_of_nothing_is_nothing(cli: Cli, here: Registry) -> None:
    assert cli("list", "-q")[1] == ""


def test_list_of_a_name_shows_it_alone(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    publish(here, "noir")
    assert cli("list", "shanty", "-q")[1] == "shanty@1\n"


def test_list_of_an_unknown_name_names_the_nearest(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    code, out, err = cli("list", "shnty")
    assert (code, out) == (1, "")
    assert err.splitlines()[1] == "hint:  adapterkit list shanty     (all: adapterkit list)"


def test_list_of_a_version_does_not_say_that_there_is_nothing(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert "No adapters" not in cli("list", "noir@1")[1]


def test_list_of_a_version_shows_it_alone(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "noir", seed=1)
    publish(here, "shanty")
    assert cli("list", "noir@1", "shanty", "-q") == (0, "noir@1\nshanty@1\n", "")


def test_list_of_an_unknown_version_says_which_there_are(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("list", "noir@7")[2].startswith("error: noir has no version '7'; it has 1.")


def _tear(version: Version) -> None:
    (path := version.path / "manifest.json").chmod(0o644)
    path.write_text("{")


def test_list_tells_a_damaged_version_beside_the_healthy(cli: Cli, here: Registry) -> None:
    _tear(publish(here, "noir"))
    publish(here, "noir", seed=1)
    publish(here, "shanty")
    code, out, err = cli("list", "--all", "-q")
    assert (code, out) == (0, "noir@2\nshanty@1\n")
    assert err.startswith("· noir@1 is damaged: ")
    assert err.count("\n") == 1


def test_list_as_json_holds_the_damaged_apart(cli: Cli, here: Registry) -> None:
    _tear(publish(here, "noir"))
    publish(here, "shanty")
    told = json.loads(cli("list", "--json")[1])
    assert [v["ref"] for v in told["versions"]] == ["shanty@1"]
    assert told["problems"][0].startswith("noir@1 is damaged")


def test_list_of_a_name_whose_versions_are_all_damaged_tells_them(cli: Cli, here: Registry) -> None:
    _tear(publish(here, "noir"))
    code, out, err = cli("list", "noir")
    assert (code, err.split(":")[0]) == (0, "· noir@1 is damaged")
    assert "yet" not in out


def test_list_sorts_by_gain_with_a_warning_about_ranking(cli: Cli, here: Registry) -> None:
    publish(here, "alpha", loss=3.4)
    publish(here, "beta", loss=2.0)
    _, out, err = cli("list", "--sort", "gain")
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["beta", "alpha"]
    assert "not a ranking between names" in err


def test_list_as_json_has_a_schema_and_every_field(cli: Cli, here: Registry) -> None:
    made = publish(here, "noir", note="hi")
    told = json.loads(cli("list", "--json")[1])
    assert (told["schema"], told["registry"]) == (1, str(here.path))
    only = told["versions"][0]
    assert (only["ref"], only["digest"], only["note"], only["is_best"]) == ("noir@1", made.digest, "hi", True)
    assert only["metrics"]["gain"] == pytest.approx(made.metrics.improvement)


def test_registry_is_named_by_a_flag(cli: Cli, tmp_path: Path) -> None:
    publish(Registry(tmp_path / "other"), "noir")
    assert cli("list", "-q", "--registry", str(tmp_path / "other"))[1] == "noir@1\n"


def test_a_long_note_is_cut(cli: Cli, here: Registry) -> None:
    publish(here, "noir", note="x" * 30)
    assert f"   {'x' * 23}…   " in cli("list")[1]


def test_list_shows_the_users_aliases_beside_the_version_they_mean(cli: Cli, here: Registry) -> None:
    publish(here, "noir", loss=2.5)
    publish(here, "noir", loss=2.9, seed=1)
    here.alias("noir@1", "prod")
    here.alias("noir@1", "old")
    rows = [line.split() for line in cli("list", "--all")[1].splitlines()[1:3]]
    assert [row[-3:] for row in rows] == [["best", "old", "prod"], ["best", "is", "@1"]]


def test_list_reads_no_manifest_that_the_index_knows(
    cli: Cli, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        publish(here, "noir", seed=i)
    monkeypatch.setattr(index, "WORTH", 1)
    cli("list")
    monkeypatch.setattr(version, "read_manifest", _never)
    assert cli("list", "--all", "-q")[1] == "noir@1\nnoir@2\nnoir@3\n"
    assert cli("list", "--all", "--json")[0] == 0


def _never(*_: object) -> None:
    raise AssertionError("a manifest was read")


def test_list_loads_no_pydantic(here: Registry) -> None:
    publish(here, "noir")
    code = "import sys\nfrom adapterkit.cli.main import run\nassert run(['list', '--all']) == 0\n"
    code += "assert not {'pydantic', 'numpy', 'yaml'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_list_of_one_name_reads_no_other(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    _tear(publish(here, "shanty"))
    assert cli("list", "noir", "-q") == (0, "noir@1\n", "")


def test_a_note_of_two_lines_stays_in_its_row(cli: Cli, here: Registry) -> None:
    publish(here, "noir", note="one\ntwo")
    assert cli("list")[1].count("\n") == 3


def test_for_a_program_the_list_is_one_line(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("list", "--json")[1].count("\n") == 1


def test_a_mix_can_not_be_listed_and_the_hint_runs(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "shanty")
    code, _, err = cli("list", "noir,shanty")
    assert (code, cli(*err.split("hint:  adapterkit ")[1].split())[0]) == (2, 0)


DELETED = """\
NAME   VERSION       NOTE        SIZE     DELETED    UNTIL
noir   1  DDDDDDDD   first try   N.N kB   just now   TIME    adapterkit restore noir@1
"""


def test_deleted_versions_are_listed_with_the_end_of_their_time(cli: Cli, here: Registry) -> None:
    publish(here, "noir", note="first try")
    publish(here, "noir", seed=1)
    here.delete("noir@1")
    code, out, err = cli("list", "--deleted")
    masked_out = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", masked(out, here))
    assert (code, re.sub(" +", " ", masked_out), err) == (0, re.sub(" +", " ", DELETED), "")


def test_nothing_deleted_is_said(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("list", "--deleted") == (0, f"Nothing deleted in {here.path}.\n", "")


def test_a_deletion_whose_time_is_over_waits_for_gc(cli: Cli, here: Registry) -> None:
    v = publish(here, "noir")
    here.delete("noir")
    os.utime(v.path / "deleted", (time.time() - 8 * 86400,) * 2)
    assert "8 days ago   the next gc   adapterkit restore noir@1\n" in cli("list", "--deleted")[1]


def test_what_gc_has_taken_is_listed_without_a_way_back(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    here.delete("noir")
    here.gc(now=True)
    assert cli("list", "noir", "--deleted")[1].endswith("gc has taken its files\n")


def test_deleted_as_json_has_both_times(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    here.delete("noir")
    only = json.loads(cli("list", "--deleted", "--json")[1])["versions"][0]
    begun, ends = (datetime.fromisoformat(only[k]) for k in ("deleted_at", "restorable_until"))
    assert (only["ref"], only["is_collected"], (ends - begun).days) == ("noir@1", False, 7)


# --- show ---------------------------------------------------------------------------


SHOW = """\
noir@1  DIGEST
  note            first try
  kind            LoRA adapter
  made            just now
  base            tiny  weights DDDDDDDD
  text            noir.txt: 120 documents, 2,600 words, 3,400 tokens learned from
  unseen text     33.1 → 20.1  −39 %  on 380 tokens (12 documents)
  ends by itself  90% of samples
  copied at most  6 words
  files           N.N kB in DIR/noir/1
  recipe          (origin of each value that is not a default or resolved from auto)
    train.seed             17               --seed

  The sea was calm.
"""


def test_show_tells_how_a_version_was_made(cli: Cli, here: Registry) -> None:
    made = publish(here, "noir", note="first try")
    code, out, err = cli("show", "noir")
    assert (code, err) == (0, "")
    assert masked(out.replace(made.digest, "DIGEST"), here) == SHOW


def test_show_takes_several_refs(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "shanty")
    assert re.findall(r"^\S+@\d", cli("show", "noir", "shanty")[1], re.MULTILINE) == ["noir@1", "shanty@1"]


@pytest.mark.parametrize("ref", ["noir", "noir@1", "noir@best", "noir@latest", "DIGEST"])
def test_show_understands_every_form_of_a_ref(cli: Cli, here: Registry, ref: str) -> None:
    made = publish(here, "noir")
    assert cli("show", ref.replace("DIGEST", f"noir@{made.digest[:8]}"))[1].startswith(
        f"noir@1  {made.digest}"
    )


def test_show_of_an_unknown_version_says_which_there_are(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("show", "noir@7") == (
        1,
        "",
        "error: noir has no version '7'; it has 1.\nhint:  adapterkit list noir --all\n",
    )


def test_show_of_an_untested_version_says_so(cli: Cli, here: Registry) -> None:
    publish(here, "noir", loss=None)
    assert "  unseen text     not tested\n" in cli("show", "noir")[1]


def test_show_recipe_is_a_recipe_file_that_loads_to_the_same(
    cli: Cli, here: Registry, tmp_path: Path
) -> None:
    made = publish(here, "noir")
    (tmp_path / "again.yaml").write_text(cli("show", "noir", "--recipe")[1])
    assert load.from_file(tmp_path / "again.yaml").recipe == made.recipe


def test_show_recipe_quotes_a_text_that_yaml_1_2_reads_as_a_number(here: Registry, tmp_path: Path) -> None:
    odd = publish(here, "noir")
    odd.manifest["recipe"]["data"]["revision"] = "12e45"
    (tmp_path / "again.yaml").write_text(recipe_file(odd))
    assert load.from_file(tmp_path / "again.yaml").recipe.data.revision == "12e45"


def test_show_recipe_of_two_versions_is_refused(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "shanty")
    code, _, err = cli("show", "noir", "shanty", "--recipe")
    assert (code, err.splitlines()[1]) == (2, "hint:  adapterkit show noir --recipe")


def test_show_as_json_holds_the_manifest(cli: Cli, here: Registry) -> None:
    made = publish(here, "noir")
    told = json.loads(cli("show", "noir", "--json")[1])["versions"][0]
    assert (told["manifest"], told["origins"]) == (made.manifest, {"train.seed": "--seed"})


IMPORT = """\
foreign@1  DIGEST
  kind            LoRA adapter
  made            just now
  came from       somebody/noir, revision 01234567
  base            tiny  weights DDDDDDDD
  text            unknown
  unseen text     unknown
  ends by itself  unknown
  copied at most  unknown
  files           N.N kB in DIR/foreign/1
  recipe          (what is known of it)
    base                   tiny
    lora.alpha             8.0
    lora.dropout           0.05
    lora.r                 4
    lora.rslora            False
    lora.targets           attn.c_attn, attn.c_proj
    method                 lora
"""


def test_what_nobody_knows_of_an_import_is_unknown(cli: Cli, here: Registry) -> None:
    made = publish_by(here, import_manifest("foreign"))
    code, out, err = cli("show", "foreign")
    assert (code, err) == (0, "")
    assert (
        masked(out.replace(made.digest, "DIGEST"), here).replace("revision DDDDDDDD", "revision 01234567")
        == IMPORT
    )


def test_an_import_without_any_recipe_is_shown_too(cli: Cli, here: Registry) -> None:
    publish_by(here, import_manifest("foreign", recipe=None), recipe_json=False)
    assert cli("show", "foreign")[1].endswith("  recipe          unknown\n")
    code, _, err = cli("show", "foreign", "--recipe")
    assert (code, err.split(":")[1]) == (1, " foreign@1 has no recipe")


def test_the_recipe_of_an_import_is_printed_as_far_as_it_is_known(cli: Cli, here: Registry) -> None:
    publish_by(here, import_manifest("foreign"))
    out = cli("show", "foreign", "--recipe")[1]
    assert out.startswith("# foreign@1 ")
    assert out.splitlines()[0].endswith(", as far as it is known")
    assert "epochs" not in out


def test_an_import_is_listed_shown_and_told_as_json(cli: Cli, here: Registry) -> None:
    publish_by(here, import_manifest("foreign"))
    only = json.loads(cli("show", "foreign", "--json")[1])["versions"][0]
    assert (only["manifest"]["data"], only["origins"], only["parents"]) == (None, {}, [])
    assert "not tested" in cli("list")[1]


def test_a_forced_base_is_shown(cli: Cli, here: Registry) -> None:
    manifest = import_manifest("foreign")
    manifest["base"] |= {"forced": True, "named": "distilgpt2"}
    publish_by(here, manifest)
    assert (
        "  base            tiny  weights 11111111  forced: it was made for distilgpt2\n"
        in cli("show", "foreign")[1]
    )


def family(here: Registry) -> list[Version]:
    """grandparent <- parent <- child, the last with a parent that is not here too."""
    made = [publish(here, "grand")]
    for name, more in (("parent", []), ("child", ["99" * 32])):
        manifest = import_manifest(name, lineage={"how": "train", "parents": [made[-1].digest, *more]})
        made.append(publish_by(here, manifest, seed=len(made)))
    return made


def test_lineage_is_followed_to_its_parents_and_theirs(cli: Cli, here: Registry) -> None:
    grand, parent, _ = family(here)
    assert (
        f"  made from       parent@1 {parent.digest[:8]}, trained\n"
        f"                    grand@1 {grand.digest[:8]}, trained\n"
        "                  99999999, not here\n"
    ) in cli("show", "child")[1]


def test_a_parent_is_found_under_its_new_name_and_when_it_is_deleted(cli: Cli, here: Registry) -> None:
    _, parent, _ = family(here)
    here.rename("parent", "mother")
    here.delete("mother")
    assert f"  made from       mother@1 {parent.digest[:8]}, trained, deleted\n" in cli("show", "child")[1]


def test_lineage_as_json_is_nested(cli: Cli, here: Registry) -> None:
    grand, _, _ = family(here)
    first, second = json.loads(cli("show", "child", "--json")[1])["versions"][0]["parents"]
    assert (first["ref"], first["state"], first["parents"][0]["digest"]) == ("parent@1", "here", grand.digest)
    assert (second["ref"], second["state"]) == (None, "missing")


# --- how things look --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(seconds=5), "now"),
        (timedelta(minutes=5), "5 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(days=1), "1 day"),
        (timedelta(days=2, hours=23), "2 days"),
    ],
)
def test_an_age_has_one_unit(ago: timedelta, expected: str) -> None:
    assert age(datetime.now(UTC) - ago) == expected


def test_a_gain_shows_the_pair_and_the_share() -> None:
    assert gain(Metrics(perplexity=27.9, base_perplexity=41.2)) == "41.2 → 27.9  −32 %"


@pytest.mark.parametrize(("share", "expected"), [(-0.32, "−32 %"), (0.051, "+5 %"), (0.0, "+0 %")])
def test_a_share_has_its_sign(share: float, expected: str) -> None:
    assert signed(share) == expected


def test_a_table_lines_its_columns_up() -> None:
    assert table([["A", "B"], ["long", "x"], ["", ""]]) == "A      B\nlong   x\n"


def test_columns_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "25")
    assert columns(["one two three", "four"]) == "  one two      four\n  three"
