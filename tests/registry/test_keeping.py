"""Markers, aliases, notes and names: hidden at once, undone in time, nothing means two things."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit import files
from adapterkit.errors import AdapterKitError, Damaged, NameTaken, NotFound, Unsupported, UsageProblem
from adapterkit.registry import slots, version
from adapterkit.registry.store import Registry
from adapterkit.registry.version import Version
from tests.versions import publish

WEIGHTS = "adapter_model.safetensors"


def _long_ago(v: Version, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(v.path / version.DELETED, (then, then))


def _files(v: Version) -> set[str]:
    return set(os.listdir(v.path))


# --- delete and restore ---


def test_a_deleted_version_is_hidden_at_once_and_restored_whole(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir@1")
    assert registry.versions("noir") == []
    assert (registry.restore("noir@1"), registry["noir"]) == (v, v)


def test_deleting_shows_the_one_before_as_latest(registry: Registry) -> None:
    first = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    registry.delete("noir")
    assert registry["noir"] == first


def test_a_deleted_version_says_how_to_have_it_again(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir@1")
    with pytest.raises(NotFound, match=r"noir@1 was deleted\.") as caught:
        registry["noir@1"]
    assert caught.value.hint == "adapterkit restore noir@1"


def test_a_name_without_a_version_left_says_how_to_have_one_again(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir")
    with pytest.raises(NotFound, match="every version of 'noir' was deleted") as caught:
        registry["noir"]
    assert caught.value.hint == "adapterkit restore noir@1"


def test_deleting_twice_is_not_found(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir@1")
    with pytest.raises(NotFound, match="was deleted"):
        registry.delete("noir@1")


def test_an_alias_in_the_way_is_said_and_nothing_is_deleted(registry: Registry) -> None:
    publish(registry, "noir")
    registry.alias("noir@1", "prod")
    with pytest.raises(Unsupported, match="noir@1 is noir@prod, which would mean nothing then") as caught:
        registry.delete("noir")
    assert (caught.value.code, "noir@1" in registry) == ("alias-in-the-way", True)


def test_force_takes_the_aliases_along(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    registry.alias("noir@1", "prod")
    registry.delete("noir@1", force=True)
    assert (registry.aliases("noir"), [v.number for v in registry.versions("noir")]) == ({}, [2])


def test_a_bare_name_restores_what_was_deleted_last(registry: Registry) -> None:
    made = [publish(registry, "noir", seed=i) for i in range(3)]
    for v, days in zip(made[:2], (1, 2), strict=True):
        registry.delete(v.ref)
        _long_ago(v, days)
    assert registry.restore("noir") == made[0]


def test_a_number_is_restored_and_not_a_digest_that_begins_with_it(registry: Registry) -> None:
    made = [publish(registry, "noir", seed=i) for i in range(20)]
    v = next(v for v in made for w in made if v is not w and w.digest.startswith(str(v.number)))
    for each in made:
        registry.delete(each.ref)
    assert registry.restore(v.ref) == v


def test_restoring_by_digest(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    assert registry.restore(f"noir@{v.digest[:8]}") == v


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("noir@1", "noir@1 was not deleted"),
        ("noir@9", "noir@9 is no deleted version"),
        ("noir", "none is deleted"),
    ],
)
def test_restoring_what_was_not_deleted_says_so(registry: Registry, ref: str, told: str) -> None:
    publish(registry, "noir")
    with pytest.raises(NotFound, match=told):
        registry.restore(ref)


def test_the_log_tells_what_was_done_in_order(registry: Registry) -> None:
    publish(registry, "noir")
    registry.note("noir", "kept")
    registry.alias("noir", "prod")
    registry.unalias("noir", "prod")
    registry.delete("noir")
    registry.restore("noir")
    told = [e.what for e in registry.log("noir")]
    assert told == ["published", "note", "alias", "alias-removed", "deleted", "restored"]


# --- gc ---


def test_gc_leaves_what_was_deleted_within_a_week(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    before = _files(v)
    report = registry.gc()
    assert (report.removed, _files(v)) == ((), before)
    assert "noir@1: deleted just now, to be restored for 7 more days" in report.kept[0]


def test_gc_takes_the_files_of_what_was_deleted_a_week_ago_and_keeps_the_manifest(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    _long_ago(v, 8)
    report = registry.gc()
    assert ([left.what for left in report.removed], _files(v)) == (["noir@1"], {"manifest.json", "collected"})


def test_gc_now_does_not_wait(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    registry.gc(now=True)
    assert not (v.path / WEIGHTS).exists()


def test_a_dry_run_says_the_same_and_removes_nothing(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    before = _files(v)
    asked = registry.gc(now=True, dry_run=True)
    assert _files(v) == before
    assert [left.what for left in asked.removed] == [left.what for left in registry.gc(now=True).removed]


def test_a_collected_version_can_not_be_restored_and_says_so(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir")
    registry.gc(now=True)
    with pytest.raises(NotFound, match="gc has taken its files"):
        registry.restore("noir@1")


def test_the_number_of_a_collected_version_stays_taken(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir")
    registry.gc(now=True)
    assert publish(registry, "noir").number == 2


def test_a_collected_version_is_still_known_by_its_digest(registry: Registry) -> None:
    """So that lineage stays readable."""
    v = publish(registry, "noir")
    registry.delete("noir")
    registry.gc(now=True)
    found = registry.find(v.digest)
    assert found is not None
    assert (found.ref, found.is_collected, found.manifest["data"]["words"]) == ("noir@1", True, 2600)


def test_what_an_alias_means_is_not_collected(registry: Registry) -> None:
    """An alias set between the look of delete and its marker."""
    v = publish(registry, "noir")
    registry.alias("noir", "prod")
    (v.path / version.DELETED).touch()
    report = registry.gc(now=True)
    assert (report.removed, (v.path / WEIGHTS).exists()) == ((), True)


def test_what_an_unfinished_run_begins_with_is_not_collected(registry: Registry) -> None:
    from tests.registry.test_runs import begin

    v = publish(registry, "noir")
    run = begin(registry.path, "shanty")
    run.write(start=f"noir@{v.digest[:8]}")
    registry.delete("noir")
    report = registry.gc(now=True)
    assert (report.removed, report.kept) == ((), ("noir@1: an unfinished run begins with it",))


def test_gc_that_loses_to_restore_takes_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    rename = os.rename

    def race(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        Registry(registry.path).restore("noir")
        rename(source, target)

    monkeypatch.setattr(os, "rename", race)
    report = registry.gc(now=True)
    assert (report.removed, registry.verify("noir@1")) == ((), [])
    assert v == registry["noir"]


def test_gc_finishes_what_a_killed_gc_began(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    (v.path / version.DELETED).rename(v.path / version.COLLECTED)
    registry.gc()
    assert _files(v) == {"manifest.json", "collected"}


def _staged(registry: Registry, name: str, hours: float) -> Path:
    folder = registry.path / ".staging" / name
    folder.mkdir(parents=True)
    (folder / "half").write_bytes(b"x" * 1000)
    then = time.time() - hours * 3600
    for path in (folder / "half", folder):
        os.utime(path, (then, then))
    return folder


def _dead() -> int:
    """The number of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@pytest.mark.parametrize(
    ("writer", "hours", "goes"),
    [
        (lambda: f"{_dead()}.{files.machine()}", 2, True),
        (lambda: f"{_dead()}.{files.machine()}", 0.5, False),
        (lambda: f"{os.getpid()}.{files.machine()}", 20, False),
        (lambda: "77.elsewhere", 20, False),
        (lambda: "77.elsewhere", 30, True),
        (lambda: "", 30, True),
    ],
)
def test_a_torn_write_goes_when_nobody_can_be_at_it(
    registry: Registry, writer: Callable[[], str], hours: float, goes: bool
) -> None:
    folder = _staged(registry, f"00ff.{writer()}", hours)
    report = registry.gc()
    assert (not folder.exists(), sum(left.bytes for left in report.removed)) == (goes, 1000 if goes else 0)


def test_a_writer_whose_staging_folder_was_collected_commits_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = slots.Home.take

    def late(home: slots.Home, folder: Path, number: int) -> None:
        shutil.rmtree(folder)
        take(home, folder, number)

    monkeypatch.setattr(slots.Home, "take", late)
    with pytest.raises(AdapterKitError, match="was taken away from") as caught:
        publish(registry, "noir")
    assert (caught.value.code, registry.names()) == ("staging", [])


def test_gc_of_an_empty_registry_finds_nothing(tmp_path: Path) -> None:
    assert Registry(tmp_path / "nowhere").gc().removed == ()
    assert not (tmp_path / "nowhere").exists()


# --- aliases ---


def test_an_alias_moves(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    second = publish(registry, "noir", seed=2)
    registry.alias("noir@1", "prod")
    registry.alias("noir@2", "prod")
    assert registry["noir@prod"] == second


@pytest.mark.parametrize(
    "alias", ["latest", "best", "base", "Prod", "9a", "", "abcdef1", "a" * 33, "../x", "a/b"]
)
def test_a_word_that_can_be_no_alias_is_refused(registry: Registry, alias: str) -> None:
    publish(registry, "noir")
    with pytest.raises(UsageProblem):
        registry.alias("noir", alias)


def test_an_alias_of_a_deleted_version_says_so(registry: Registry) -> None:
    v = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    registry.alias("noir@1", "prod")
    (v.path / version.DELETED).touch()
    with pytest.raises(
        NotFound, match=r"noir@prod means noir@1, which is not there: noir@1 was deleted"
    ) as caught:
        registry["noir@prod"]
    assert caught.value.hint == "adapterkit restore noir@1"


def test_removing_an_alias_that_is_not_there_names_those_that_are(registry: Registry) -> None:
    publish(registry, "noir")
    registry.alias("noir", "prod")
    with pytest.raises(NotFound, match="noir has no alias 'prd'; it has prod") as caught:
        registry.unalias("noir", "prd")
    assert caught.value.hint == "adapterkit alias --remove noir@prod"


def test_a_damaged_alias_can_be_removed(registry: Registry) -> None:
    publish(registry, "noir")
    registry.alias("noir", "prod")
    (registry.path / "noir" / "aliases" / "prod").write_bytes(b"{}")
    with pytest.raises(Damaged):
        registry["noir@prod"]
    registry.unalias("noir", "prod")
    assert registry.problems() == []


def test_an_alias_that_is_a_link_is_not_followed(registry: Registry, tmp_path: Path) -> None:
    publish(registry, "noir")
    registry.alias("noir", "prod")
    alias = registry.path / "noir" / "aliases" / "prod"
    alias.rename(tmp_path / "outside")
    alias.symlink_to(tmp_path / "outside")
    with pytest.raises(Damaged, match="the alias 'prod'"):
        registry["noir@prod"]


# --- notes ---


def test_a_note_replaces_the_one_before_and_an_empty_one_takes_it_away(registry: Registry) -> None:
    publish(registry, "noir", note="first")
    assert registry.note("noir", "second").note == "second"
    assert registry["noir"].note == "second"
    registry.note("noir", "")
    assert registry["noir"].note == ""


def test_a_version_is_published_though_its_log_can_not_be_written(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "append_line", full)
    v = publish(registry, "noir", note="first")
    assert (v.number, registry.verify()) == (1, [])
    assert "noir@1 was published, but the log could not be written" in caplog.text


# --- names ---


def test_a_renamed_adapter_keeps_versions_aliases_notes_and_log(registry: Registry) -> None:
    made = [publish(registry, "noir", seed=i, note=f"n{i}") for i in range(2)]
    registry.alias("noir@1", "prod")
    registry.rename("noir", "harbour")
    there = registry.versions("harbour")
    assert [(v.ref, v.digest, v.note) for v in there] == [
        (f"harbour@{v.number}", v.digest, v.note) for v in made
    ]
    assert (registry["harbour@prod"], registry.verify()) == (made[0], [])
    assert [e.what for e in registry.log("harbour")][-1] == "renamed"


def test_the_old_name_says_the_new_one(registry: Registry) -> None:
    publish(registry, "noir")
    registry.rename("noir", "harbour")
    with pytest.raises(NotFound, match="'noir' is called 'harbour' now") as caught:
        registry["noir@1"]
    assert caught.value.hint == "adapterkit show harbour@1"


def test_an_old_name_used_anew_goes_on_above_its_numbers(registry: Registry) -> None:
    for i in range(3):
        publish(registry, "noir", seed=i)
    registry.rename("noir", "harbour")
    publish(registry, "harbour", seed=8)
    assert publish(registry, "noir", seed=9).ref == "noir@5"


def test_numbers_stay_taken_along_a_chain_of_names_and_after_removal(registry: Registry) -> None:
    for i in range(3):
        publish(registry, "a", seed=i)
    registry.rename("a", "b")
    registry.rename("b", "c")
    shutil.rmtree(registry.path / "c")
    assert publish(registry, "a", seed=9).number == 4


def test_many_renames_are_no_burden(registry: Registry) -> None:
    """Each name leads to each other by many ways; looked at one by one they are more than stars."""
    v = publish(registry, "a")
    for _ in range(40):
        for old, new in (("a", "b"), ("b", "c"), ("c", "a")):
            registry.rename(old, new)
    assert (registry["a@1"], publish(registry, "b", seed=3).number) == (v, 2)


def test_a_name_can_be_taken_back(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.rename("noir", "harbour")
    registry.rename("harbour", "noir")
    assert (registry["noir@1"], publish(registry, "noir", seed=5).number) == (v, 2)


def test_a_name_that_was_given_up_is_not_for_another_adapter(registry: Registry) -> None:
    publish(registry, "noir")
    registry.rename("noir", "harbour")
    publish(registry, "shanty", seed=4)
    with pytest.raises(NameTaken, match="'noir' was another adapter, with versions up to 1"):
        registry.rename("shanty", "noir")


def test_a_name_that_is_taken_is_refused_and_nothing_moves(registry: Registry) -> None:
    publish(registry, "noir")
    publish(registry, "shanty", seed=1)
    with pytest.raises(NameTaken, match="'shanty' is an adapter already"):
        registry.rename("noir", "shanty")
    assert registry.names() == ["noir", "shanty"]


def test_a_writer_caught_by_a_rename_publishes_under_the_new_name_or_above_the_old_numbers(
    registry: Registry,
) -> None:
    """Stalled between choosing number 2 and committing, while 2 is published and the name is renamed."""
    publish(registry, "noir", seed=1)
    take, stalled, go_on = slots.Home.take, threading.Event(), threading.Event()

    def slow(home: slots.Home, folder: Path, number: int) -> None:
        if threading.current_thread() is writer:
            stalled.set()
            go_on.wait(10)
        take(home, folder, number)

    failed: list[Exception] = []

    def write() -> None:
        try:
            publish(Registry(registry.path), "noir", seed=2)
        except NotFound as e:
            failed.append(e)

    writer = threading.Thread(target=write)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots.Home, "take", slow)
        writer.start()
        stalled.wait(10)
        other = publish(registry, "noir", seed=3)
        registry.rename("noir", "harbour")
        go_on.set()
        writer.join(10)
    found = {v.ref: v.digest for v in registry.versions()}
    assert found["harbour@2"] == other.digest
    assert sorted(found) == ["harbour@1", "harbour@2", "noir@3"]


# --- exact numbers and sealed manifests ---


def _copy(registry: Registry, v: Version, **more: object) -> Version:
    with registry.staging() as folder:
        for name in v.manifest["files"]:
            shutil.copyfile(v.path / name, folder / name)
        return registry.publish(folder, v.manifest, number=v.number, sealed=True, **more)  # type: ignore[arg-type]


def test_a_sealed_manifest_comes_back_under_its_own_number(registry: Registry, tmp_path: Path) -> None:
    for i in range(3):
        v = publish(registry, "noir", seed=i)
    other = Registry(tmp_path / "other")
    assert (_copy(other, v), other["noir@3"].digest) == (v, v.digest)


def test_the_same_digest_published_again_is_the_version_that_is_there(registry: Registry) -> None:
    v = publish(registry, "noir")
    assert (_copy(registry, v), len(registry.versions())) == (v, 1)


def test_a_number_that_is_another_versions_is_refused(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir", seed=1)
    other = Registry(tmp_path / "other")
    there = publish(other, "noir", seed=2)
    with pytest.raises(NameTaken, match="noir@1 is another version here"):
        _copy(other, v)
    assert other["noir@1"] == there


def test_a_sealed_manifest_that_does_not_fit_its_files_is_refused(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir")
    (v.path / "README.md").chmod(0o644)
    (v.path / "README.md").write_text("changed")
    other = Registry(tmp_path / "other")
    with pytest.raises(Damaged, match="not those of its manifest"):
        _copy(other, v)
    assert other.versions() == []


# --- verify and faults ---


def test_verify_finds_nothing_in_what_was_published(registry: Registry) -> None:
    publish(registry, "noir")
    assert registry.verify() == []


def test_verify_names_every_damaged_version_and_lost_alias(registry: Registry) -> None:
    for i in range(3):
        publish(registry, "noir", seed=i)
    registry.alias("noir@3", "prod")
    for number, name in ((1, "manifest.json"), (2, WEIGHTS)):
        path = registry.path / "noir" / str(number) / name
        path.chmod(0o644)
        path.write_bytes(b"no")
    (registry.path / "noir" / "3" / version.DELETED).touch()
    assert sorted(p.ref for p in registry.verify()) == ["noir@1", "noir@2", "noir@prod"]


def test_verify_finds_a_file_that_was_not_published(registry: Registry) -> None:
    """A loader may prefer a pickle that lies beside the weights."""
    v = publish(registry, "noir")
    (v.path / "adapter_model.bin").write_bytes(b"x")
    problems = registry.verify("noir")
    assert "adapter_model.bin was not published with it" in problems[0].what


def test_verify_finds_a_link_to_the_very_same_bytes(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir")
    shutil.copy(v.path / WEIGHTS, tmp_path / "outside")
    (v.path / WEIGHTS).unlink()
    (v.path / WEIGHTS).symlink_to(tmp_path / "outside")
    assert [p.ref for p in registry.verify()] == ["noir@1"]


def test_a_version_folder_that_is_a_link_is_no_version(registry: Registry, tmp_path: Path) -> None:
    v = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    shutil.move(v.path, tmp_path / "outside")
    v.path.symlink_to(tmp_path / "outside")
    assert [w.number for w in registry.versions("noir")] == [2]


def test_faults_are_mended(registry: Registry) -> None:
    from adapterkit.registry import check

    v = publish(registry, "noir", seed=1)
    publish(registry, "noir", seed=2)
    registry.alias("noir@1", "prod")
    (v.path / version.DELETED).touch()
    (v.path / WEIGHTS).chmod(0o600)
    _staged(registry, "00ff", 30)
    found = check.faults(registry)
    assert sorted(p.code for p in found) == ["lost-alias", "mode", "staging"]
    for problem in found:
        assert problem.mend is not None
        problem.mend()
    assert check.faults(registry) == []


# --- many ---


def test_many_versions_are_read_once_and_seen_as_they_are(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [publish(registry, f"n{i % 4}", seed=i) for i in range(120)]
    Registry(registry.path).shelves()
    read: list[Path] = []
    whole = version.read

    def counted(folder: Path, note: str = "") -> Version:
        read.append(folder)
        return whole(folder, note)

    monkeypatch.setattr(version, "read", counted)
    registry.delete(made[0].ref)
    registry.note(made[1].ref, "seen")
    read.clear()
    again = Registry(registry.path)
    found = again.versions()
    assert (len(found), [p.parent.name + p.name for p in read]) == (119, ["n01"])
    assert {v.ref: v.note for v in found}[made[1].ref] == "seen"
    assert {v.digest: (v.facts, v.manifest["digest"]) for v in found} == {
        v.digest: (v.facts, v.digest) for v in made[1:]
    }


def test_a_small_registry_keeps_no_index(registry: Registry) -> None:
    from adapterkit.cache import cache_folder

    publish(registry, "noir")
    registry.versions()
    assert not (cache_folder() / "registries").exists()


def test_a_version_that_lands_in_a_renamed_folder_is_returned_under_its_new_name(registry: Registry) -> None:
    publish(registry, "noir", seed=1)
    take = slots.Home.take

    def renamed_first(home: slots.Home, folder: Path, number: int) -> None:
        Registry(registry.path).rename("noir", "harbour")
        take(home, folder, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots.Home, "take", renamed_first)
        v = publish(registry, "noir", seed=2, note="caught")
    assert (v.ref, registry["harbour@2"].note, registry.names()) == ("harbour@2", "caught", ["harbour"])


@pytest.mark.parametrize("names", [3, {"n0": 3}, {"n0": {"1": [[1], 2]}}, {"n0": {"1": []}}])
def test_an_index_that_is_spoilt_is_read_past(registry: Registry, names: object) -> None:
    from adapterkit.cache import cache_folder

    made = [publish(registry, f"n{i % 4}", seed=i) for i in range(104)]
    Registry(registry.path).shelves()
    path = next((cache_folder() / "registries").iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names": names}))
    assert {v.digest for v in Registry(registry.path).versions()} == {v.digest for v in made}


# --- found by a review ---


def test_a_number_that_would_be_no_number_any_more_is_refused(registry: Registry) -> None:
    """Beyond six digits a ref is a digest; a folder of that name would never be seen."""
    v = publish(registry, "noir")
    (registry.path / "noir" / "999999").mkdir()
    (registry.path / "noir" / "999999" / "manifest.json").write_bytes(b"{}")
    with pytest.raises(Unsupported, match="has used up its numbers"):
        publish(registry, "noir", seed=2)
    assert registry["noir@1"] == v


@pytest.mark.parametrize("what", ["publish", "alias", "look"])
def test_a_name_that_is_a_link_is_not_followed(registry: Registry, tmp_path: Path, what: str) -> None:
    (tmp_path / "outside").mkdir()
    (registry.path / "noir").symlink_to(tmp_path / "outside")
    acts = {
        "publish": lambda: publish(registry, "noir"),
        "alias": lambda: registry.alias("noir", "prod"),
        "look": lambda: registry["noir"],
    }
    with pytest.raises(Damaged, match="links in a registry are not followed"):
        acts[what]()
    assert (list((tmp_path / "outside").iterdir()), registry.names()) == ([], [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", {"perplexity": "low"}),
        ("metrics", {"loss": []}),
        ("metrics", []),
        ("data", 5),
        ("data", {"source": "x"}),
        ("lora", 5),
        ("environment", 5),
        ("half", {"of": 3}),
        ("lineage", {"how": "train", "parents": ["x"]}),
        ("version", True),
        ("created", 5),
        ("recipe", "x"),
        ("imported", {"ref": "a\u001b[31mb"}),
    ],
)
def test_a_sealed_manifest_of_another_shape_is_damaged_and_hides_no_other(
    registry: Registry, key: str, value: object
) -> None:
    v, other = publish(registry, "noir"), publish(registry, "shanty", seed=1)
    path = v.path / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(files.canonical_json(version.seal(v.manifest | {key: value})))
    assert (registry.versions(), len(registry.problems())) == ([other], 1)
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        registry["noir@1"]


def test_a_version_too_damaged_to_be_read_is_hidden_and_shown_by_its_number(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / "manifest.json").chmod(0o644)
    (v.path / "manifest.json").write_bytes(b"{")
    with pytest.raises(Damaged):
        registry.delete("noir")  # which one that is can't be told
    registry.delete("noir@1")
    assert (registry.problems(), publish(registry, "noir", seed=2).number) == ([], 2)
    with pytest.raises(Damaged, match="noir@1 is damaged"):
        registry.restore("noir@1")
    assert len(registry.problems()) == 1


def test_a_name_with_a_damaged_version_can_be_renamed(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / "manifest.json").chmod(0o644)
    (v.path / "manifest.json").write_bytes(b"{")
    registry.rename("noir", "harbour")
    assert registry.names() == ["harbour"]


def test_a_damaged_twin_does_not_stand_for_what_is_published(registry: Registry) -> None:
    v = publish(registry, "noir")
    (v.path / WEIGHTS).chmod(0o644)
    (v.path / WEIGHTS).write_bytes(b"x")
    again = publish(registry, "noir")
    assert (again.number, registry.verify("noir@2")) == (2, [])


def test_a_bare_digest_is_answered_with_the_ref(registry: Registry) -> None:
    v = publish(registry, "noir")
    with pytest.raises(NotFound, match="is a digest") as caught:
        registry[v.digest[:8]]
    assert caught.value.hint == f"adapterkit show noir@{v.digest[:8]}"


def test_a_marker_of_a_clock_ahead_is_of_now(registry: Registry) -> None:
    v = publish(registry, "noir")
    registry.delete("noir")
    _long_ago(v, -30_000)
    assert "to be restored for 7 more days" in registry.gc().kept[0]


def test_a_name_without_anything_left_says_where_it_is_listed(registry: Registry) -> None:
    publish(registry, "noir")
    registry.delete("noir")
    registry.gc(now=True)
    with pytest.raises(NotFound, match="gc has taken their files") as caught:
        registry["noir"]
    assert caught.value.hint == "adapterkit list noir --deleted"


def test_a_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageProblem, match="is no folder"):
        Registry(tmp_path / "file")


def test_what_was_written_is_on_the_disk_before_and_after_the_commit(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, their folder, the rename, then the name's folder and the root: a power cut finds all or nothing."""
    publish(registry, "noir")  # so that the name is there
    told: list[str] = []
    fsync, rename = os.fsync, os.rename

    def flushed(fd: int) -> None:
        told.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def renamed(source: object, target: object, **more: object) -> None:
        told.append(f"rename to {os.path.basename(str(target))}")
        rename(source, target, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    publish(registry, "noir", seed=2)
    at = told.index("rename to 2")
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json", "recipe.json"]
    assert [n for n in names if n in told[:at]] == names
    staged = [n for n in told[:at] if n.endswith(files.machine())]
    assert (len(staged), told[at + 1 : at + 3]) == (1, ["noir", registry.path.name])
