"""``list`` and ``show``: what they print, as text and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapterkit.cli.keep import recipe_file
from adapterkit.cli.output import age, columns, gain, signed, table
from adapterkit.recipe import load
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
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
    made = publish(here, "noir")
    told = made.manifest["recipe"]
    odd = replace(
        made, manifest=made.manifest | {"recipe": told | {"data": told["data"] | {"revision": "12e45"}}}
    )
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
