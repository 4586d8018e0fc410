"""``log`` and ``diff``: what they print, as text and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from adapterkit.registry.store import Registry
from adapterkit.registry.version import Metrics, Version
from tests.forms import import_manifest, publish_by
from tests.versions import FINGERPRINTS, manifest_of, publish

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("ADAPTERKIT_REGISTRY", str(registry.path))
    return registry


LOG = """\
TIME   harbour@1   published: "first try"
TIME   harbour@2   published
TIME   harbour@1   alias prod set to it
TIME   harbour@2   note: "more text"
TIME   harbour@2   note taken away
TIME   harbour@2   deleted
TIME   harbour@2   restored
TIME   harbour     alias prod removed
TIME   harbour     renamed, was noir
"""


def _live(cli: Cli, here: Registry) -> None:
    publish(here, "noir", note="first try")
    publish(here, "noir", seed=1)
    for words in (
        ["alias", "noir@1", "prod"], ["note", "noir", "more text"], ["note", "noir", ""], ["delete", "noir"],
        ["restore", "noir"], ["alias", "--remove", "noir@prod"], ["rename", "noir", "harbour"],
    ):  # fmt: skip
        assert cli(*words)[0] == 0, words


def masked(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", text)


def test_the_log_tells_everything_in_words_the_newest_last(cli: Cli, here: Registry) -> None:
    _live(cli, here)
    code, out, err = cli("log")
    assert (code, masked(out), err) == (0, LOG, "")


def test_the_log_of_a_name_leaves_others_out(cli: Cli, here: Registry) -> None:
    _live(cli, here)
    publish(here, "shanty")
    assert masked(cli("log", "harbour")[1]) == LOG
    assert masked(cli("log", "shanty")[1]) == "TIME   shanty@1   published\n"


def test_the_log_of_one_version_is_its_own(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "noir", seed=1)
    assert masked(cli("log", "noir@2")[1]) == "TIME   noir@2   published\n"


def test_the_log_of_a_deleted_version_is_still_told(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    v = publish(here, "noir", seed=1)
    assert masked(cli("log", f"noir@{v.digest[:10]}")[1]) == "TIME   noir@2   published\n"
    cli("delete", "noir@2")
    assert masked(cli("log", "noir@2")[1]) == "TIME   noir@2   published\nTIME   noir@2   deleted\n"


def test_the_log_of_a_version_that_never_was_is_refused(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("log", "noir@7")[2].startswith("error: noir has no version '7'; it has 1.")


def test_the_log_of_all_mixes_names_by_time(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    publish(here, "noir")
    cli("note", "shanty", "late")
    assert [line.split()[2] for line in cli("log")[1].splitlines()] == ["shanty@1", "noir@1", "shanty@1"]


def test_the_log_of_a_name_with_nothing_left_is_still_told(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    cli("delete", "noir")
    assert masked(cli("log", "noir")[1]).endswith("TIME   noir@1   deleted\n")


def test_the_log_of_a_name_that_was_renamed_leads_to_the_new(cli: Cli, here: Registry) -> None:
    _live(cli, here)
    assert cli("log", "noir") == (
        1, "", "error: 'noir' is called 'harbour' now.\nhint:  adapterkit log harbour\n",
    )  # fmt: skip


def test_the_log_of_an_unknown_name_names_the_nearest(cli: Cli, here: Registry) -> None:
    publish(here, "shanty")
    code, _, err = cli("log", "shnty")
    assert (code, "adapterkit log shanty" in err) == (1, True)


def test_an_empty_registry_has_no_log(cli: Cli, here: Registry) -> None:
    assert cli("log") == (0, f"Nothing has happened in {here.path} yet.\n", "")


def test_log_as_json_has_every_field(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    cli("alias", "noir", "prod")
    last = json.loads(cli("log", "--json")[1])["entries"][-1]
    assert set(last) == {"at", "name", "version", "ref", "what", "more"}
    assert (last["ref"], last["what"], last["more"]["alias"]) == ("noir@1", "alias", "prod")


# --- diff -----------------------------------------------------------------------------


def other(registry: Registry, name: str = "noir") -> Version:
    """Another rank, seed and text than ``publish`` makes, begun with noir@1, and better."""
    metrics = Metrics(
        loss=2.9, base_loss=3.5, perplexity=18.2, base_perplexity=33.1, tokens=380, held_out="44" * 32
    )
    manifest = manifest_of(name, "lora", "tiny", FINGERPRINTS, metrics)
    manifest["recipe"]["lora"]["r"], manifest["recipe"]["train"]["seed"] = 16, 5
    manifest["data"] |= {"documents": 118, "fingerprint": "66" * 32}
    manifest["lineage"]["parents"] = [registry["noir@1"].digest]
    return publish_by(registry, manifest, seed=9, note="wider")


DIFF = """\
                 noir@1 "first try"   noir@2 "wider"
made from        nothing              DDDDDDDD
lora.r           4                    16
train.seed       17                   5
text             55555555             66666666
documents        120                  118
perplexity       20.1                 18.2
gain             −39 %                −45 %
unseen text      44444444             44444444
ends by itself   90%                  unknown
copied at most   6 words              unknown
"""


def test_diff_shows_what_differs_and_the_scores(cli: Cli, here: Registry) -> None:
    first = publish(here, "noir", note="first try")
    other(here)
    code, out, err = cli("diff", "noir@1", "noir@2")
    assert (code, out.replace(first.digest[:8], "DDDDDDDD"), err) == (0, DIFF, "")


def test_two_made_alike_are_said_to_be(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "noir", seed=1)
    assert cli("diff", "noir@1", "noir@2", "-q") == (
        0, "noir@1 and noir@2 were made in the same way.\n", "",
    )  # fmt: skip


def test_another_base_is_a_difference(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish(here, "noir", seed=1, base_fingerprints=FINGERPRINTS | {"tokenizer": "77" * 32})
    line = next(x for x in cli("diff", "noir@1", "noir@2")[1].splitlines() if x.startswith("base"))
    assert line.split() == ["base", "tiny", "(tokenizer", "33333333)", "tiny", "(tokenizer", "77777777)"]


def test_what_an_import_came_without_is_unknown(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    publish_by(here, import_manifest("foreign"), seed=3)
    rows = {line[:18].strip(): line[18:].split() for line in cli("diff", "noir", "foreign")[1].splitlines()}
    assert rows["documents"] == ["120", "unknown"]
    assert rows["train.seed"] == ["17", "unknown"]
    assert rows["perplexity"] == ["20.1", "unknown"]
    assert rows["made by"] == ["trained", "imported"]


def test_diff_as_json_keeps_numbers(cli: Cli, here: Registry) -> None:
    publish(here, "noir", note="first try")
    other(here)
    told = json.loads(cli("diff", "noir@1", "noir", "--json")[1])
    assert (told["left"]["ref"], told["right"]["note"], told["same"]) == ("noir@1", "wider", False)
    assert {"key": "lora.r", "left": 4, "right": 16} in told["recipe"]
    assert {"key": "documents", "left": 120, "right": 118} in told["data"]
    assert {"key": "copied at most", "left": 6, "right": None} in told["metrics"]
    assert told["base"] == []


def test_diff_of_an_unknown_version_says_which_there_are(cli: Cli, here: Registry) -> None:
    publish(here, "noir")
    assert cli("diff", "noir@1", "noir@7")[2].startswith("error: noir has no version '7'; it has 1.")


@pytest.mark.parametrize("words", [["diff", "noir"], ["diff", "noir", "noir", "noir"]])
def test_diff_takes_two(cli: Cli, here: Registry, words: list[str]) -> None:
    assert cli(*words)[0] == 2
