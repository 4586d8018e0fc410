"""A source read once and found again: what the key depends on, what happens when the cache can't be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data import gather as module
from adapterkit.data.gather import Gathered, fingerprint, gather
from adapterkit.data.sources import Documents, Read
from adapterkit.data.text import Text
from adapterkit.errors import DataError
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
from tests.data.words import Words, babble, text


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "text"


def _forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def texts(self: Read) -> Iterator[Text]:
        raise AssertionError("the source was read again")

    monkeypatch.setattr(Read, "texts", texts)


def _gather(source: Path | str, encoder: Any, cache: Path | None = None, **changes: Any) -> Gathered:
    return gather(DataSpec.model_validate({"source": str(source), **changes}), encoder, cache=cache)


def _same(a: Gathered, b: Gathered) -> bool:
    return (
        list(a.corpus) == list(b.corpus)
        and all(a.corpus.tokens(i).tolist() == b.corpus.tokens(i).tolist() for i in range(len(a.corpus)))
        and a.groups.tolist() == b.groups.tolist()
        and (a.facts, a.near) == (b.facts, b.near)
    )


# --- read once ---


def test_what_is_kept_is_what_is_read_into_memory(text_file: Path, tokenizer: Tokenizer, cache: Path) -> None:
    memory, built = _gather(text_file, tokenizer), _gather(text_file, tokenizer, cache)
    assert _same(memory, built)
    assert _same(memory, _gather(text_file, tokenizer, cache))


def test_a_text_that_was_prepared_is_not_read_again(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _gather(text_file, tokenizer, cache)
    _forbid(monkeypatch)
    assert _same(before, _gather(text_file, tokenizer, cache))


def test_copies_that_were_found_are_not_looked_for_again(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _gather(text_file, tokenizer, cache)

    def groups(*_: object) -> None:
        raise AssertionError("copies were looked for again")

    monkeypatch.setattr(module.copies, "groups", groups)
    assert _gather(text_file, tokenizer, cache).groups.tolist() == before.groups.tolist()


def test_texts_from_memory_are_kept_too(
    tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Documents([text(Random(i), 3) for i in range(20)], name="mine")
    before = gather(DataSpec(), tokenizer, memory=mine, cache=cache)
    _forbid(monkeypatch)
    assert _same(before, gather(DataSpec(), tokenizer, memory=mine, cache=cache))


def test_the_same_texts_under_another_name_are_told_by_that_name(tokenizer: Tokenizer, cache: Path) -> None:
    found = [
        gather(DataSpec(), tokenizer, memory=Documents(["one", "two"], name=name), cache=cache)
        for name in ("mine", "yours")
    ]
    assert [g.facts.name for g in found] == ["mine", "yours"]
    assert [g.corpus[0].source for g in found] == ["mine[0]", "yours[0]"]


def test_a_file_that_moved_is_not_read_again(
    text_file: Path, tmp_path: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _gather(text_file, tokenizer, cache)
    moved = tmp_path / "elsewhere" / text_file.name
    moved.parent.mkdir()
    text_file.rename(moved)
    _forbid(monkeypatch)
    after = _gather(moved, tokenizer, cache)
    assert (list(after.corpus), after.facts.name) == (list(before.corpus), str(moved))


# --- what the key depends on ---


def _is_read(
    monkeypatch: pytest.MonkeyPatch, source: Path, encoder: Any, cache: Path, **changes: Any
) -> bool:
    """Whether the source is read for this, or found in the cache."""
    read: list[bool] = []
    texts = Read.texts

    def watched(self: Read) -> Iterator[Text]:
        read.append(True)
        return texts(self)

    with monkeypatch.context() as patch:
        patch.setattr(Read, "texts", watched)
        _gather(source, encoder, cache, **changes)
    return bool(read)


@pytest.mark.parametrize(
    "changes",
    [
        {"document": "file"},
        {"document": "line"},  # what auto became, but said
        {"reflow": False},
        {"separator": "<>"},
        {"clean": ["whitespace"]},
        {"clean": [{"drop": "barrels"}]},
        {"clean": [{"replace": "barrels", "to": "casks"}]},
        {"clean": [{"min_words": 3}]},
        {"clean": ["whitespace", "duplicates"]},
        {"clean": ["duplicates", "whitespace"]},
        {"format": "txt"},
    ],
    ids=str,
)
def test_what_changes_the_documents_is_read_anew(
    text_file: Path,
    tokenizer: Tokenizer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    _gather(text_file, tokenizer, cache)
    assert _is_read(monkeypatch, text_file, tokenizer, cache, **changes)
    assert not _is_read(monkeypatch, text_file, tokenizer, cache, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": 0.3},
        {"validation": "none"},
        {"packing": "concat"},
        {"packing": "none", "pad_to": 32},
        {"truncate": True},
    ],
    ids=str,
)
def test_what_is_done_with_the_documents_later_reads_nothing_anew(
    text_file: Path,
    tokenizer: Tokenizer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    _gather(text_file, tokenizer, cache)
    assert not _is_read(monkeypatch, text_file, tokenizer, cache, **changes)


def test_columns_of_a_table_are_part_of_the_key(
    tmp_path: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "jokes.csv"
    table.write_text("setup,punchline\n" + "Why is it so?,Because it is.\n" * 5)
    for changes in (
        {},
        {"text": "punchline"},
        {"prompt": "punchline", "completion": "setup"},
        {"prompt": "Q: {setup}\nA: ", "completion": "punchline"},
    ):
        assert _is_read(monkeypatch, table, tokenizer, cache, **changes)
        assert not _is_read(monkeypatch, table, tokenizer, cache, **changes)


def test_the_bytes_of_the_text_are_part_of_the_key(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gather(text_file, tokenizer, cache)
    text_file.write_text(text_file.read_text().replace("cat", "dog", 1))  # of the same length
    assert _is_read(monkeypatch, text_file, tokenizer, cache)


def test_the_names_of_files_are_part_of_the_key(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held out goes by them."""
    _gather(text_file, tokenizer, cache)
    assert _is_read(monkeypatch, text_file.rename(text_file.with_name("other.txt")), tokenizer, cache)


def test_the_tokenizer_is_part_of_the_key(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gather(text_file, tokenizer, cache)
    assert _is_read(monkeypatch, text_file, Words(), cache)


@pytest.mark.parametrize("name", ["FORMAT", "version"])
def test_the_code_that_shapes_the_text_is_part_of_the_key(
    text_file: Path, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _gather(text_file, tokenizer, cache)
    monkeypatch.setattr(module, name, 1_000_000 if name == "FORMAT" else lambda package: "1000.0")
    assert _is_read(monkeypatch, text_file, tokenizer, cache)


# --- when the cache can't be used ---


@pytest.mark.parametrize("name", ["documents.arrow", "facts.json"])
def test_what_is_cut_off_is_read_again(text_file: Path, tokenizer: Tokenizer, cache: Path, name: str) -> None:
    before = _gather(text_file, tokenizer, cache)
    path = next(cache.glob(f"*/{name}"))
    path.write_bytes(path.read_bytes()[:-20])
    assert _same(before, _gather(text_file, tokenizer, cache))


def test_a_cache_that_can_not_be_written_is_said_and_the_text_is_prepared_in_memory(
    text_file: Path, tokenizer: Tokenizer, cache: Path
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in its place")
    found = _gather(text_file, tokenizer, cache)
    assert found.facts.said[-1].startswith("the prepared text is not kept for next time: ")
    found.facts.said.pop()
    assert _same(found, _gather(text_file, tokenizer))


FULL = """
import resource, signal, sys
from pathlib import Path
from adapterkit.data.gather import gather
from adapterkit.recipe.schema import DataSpec
from tests.data.words import Words
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
found = gather(DataSpec(source=sys.argv[1], document="line"), Words(), cache=Path(sys.argv[2]))
print(len(found.corpus), found.facts.said[-1])
"""


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    """The system refuses to let a file grow, halfway through it."""
    source = tmp_path / "large.txt"
    source.write_text("".join(f"{babble(Random(i), 50)}\n".replace("\n\n", " ") for i in range(2000)))
    told = subprocess.run(
        [sys.executable, "-c", FULL, str(source), str(cache)], capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2]
    )  # fmt: skip
    assert told.stdout.startswith("2000 the prepared text is not kept for next time: "), told.stderr
    assert list(cache.iterdir()) == []


def test_an_error_of_the_source_is_no_error_of_the_cache(
    tmp_path: Path, tokenizer: Tokenizer, cache: Path
) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(DataError, match="there is no text in it: every document is blank"):
        _gather(tmp_path / "blank.txt", tokenizer, cache)
    assert list(cache.iterdir()) == []


# --- what is found ---


@pytest.mark.parametrize("how", ["auto", "line", "blank-line", "file", "article", "<eos>"])
def test_a_text_of_blanks_is_refused(tmp_path: Path, tokenizer: Tokenizer, how: str) -> None:
    (tmp_path / "blank.txt").write_text(" \n\t\n\n")
    with pytest.raises(DataError, match="there is no text in it: every document is blank"):
        _gather(tmp_path / "blank.txt", tokenizer, document=how)


def test_an_empty_memory_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="there is no text in it"):
        gather(DataSpec(), tokenizer, memory=Documents([]))


def test_facts_count_what_was_read(text_file: Path, tokenizer: Tokenizer) -> None:
    content = text_file.read_text()
    text_file.write_text(f"{content}\n \n{content.splitlines()[0]}\n")
    facts = _gather(text_file, tokenizer, document="line", clean=["duplicates"]).facts
    assert (facts.files, facts.how, facts.blank, facts.documents_read) == (1, "line", 3, 121)
    assert facts.characters_read == len(text_file.read_text())
    assert [(d["rule"], d["dropped"]) for d in facts.done] == [("duplicates", 1)]


def test_another_source_may_take_the_place_of_the_recipes(
    text_file: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Something else.")
    found = gather(DataSpec(source=str(text_file)), tokenizer, only=str(other))
    assert [d.text for d in found.corpus] == ["Something else."]


def test_copies_and_drafts_have_the_label_of_the_first(tokenizer: Tokenizer) -> None:
    one, two = babble(Random(0), 200), babble(Random(1), 200)
    mine = Documents([one, two, f"{one}\n", f"{two} And more."])
    assert gather(DataSpec(), tokenizer, memory=mine).groups.tolist() == [0, 1, 0, 1]


def test_of_a_large_text_only_exact_copies_are_found(
    tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEAR_COPIES_UP_TO", 100)
    one = babble(Random(0), 200)
    mine = Documents([one, f"{one} And more.", f"{one}\n"])
    for place in (None, cache, cache):
        found = gather(DataSpec(), tokenizer, memory=mine, cache=place)
        assert (found.near, found.groups.tolist()) == (False, [0, 1, 0])


def test_progress_is_told_while_reading(
    text_file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_EVERY", 0.0)
    told: list[tuple[int, int]] = []
    gather(DataSpec(source=str(text_file)), tokenizer, progress=lambda *counts: told.append(counts))
    assert [count for count, _ in told] == list(range(1, 121))
    assert told[-1][1] == len(text_file.read_text())


# --- odd texts ---


def test_half_characters_and_zeros_do_no_harm(tokenizer: Tokenizer, cache: Path) -> None:
    mine = Documents(["one \ud83d two", "a\0b", "\ufeffc", "d\u2028e"])
    found = gather(DataSpec(), tokenizer, memory=mine, cache=cache)
    assert [tokenizer.decode(found.corpus.tokens(i)[1:-1].tolist()) for i in range(4)] == [d.text for d in found.corpus]  # fmt: skip


def test_a_file_whose_name_is_no_text_can_be_kept(tmp_path: Path, tokenizer: Tokenizer, cache: Path) -> None:
    folder = tmp_path / "tales"
    folder.mkdir()
    for name in (b"b\xe4r.txt", b"tam.txt"):
        with open(os.path.join(os.fsencode(folder), name), "w") as file:
            file.write(f"{name!r} {babble(Random(0), 50)}")
    built, again = (_gather(folder, tokenizer, cache) for _ in range(2))
    assert (len(built.corpus), _same(built, again)) == (2, True)


# --- fingerprints ---


def test_texts_that_run_together_alike_have_fingerprints_of_their_own() -> None:
    lists = ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"], [b"ab", b"c", b""])
    assert len({fingerprint(parts) for parts in lists}) == 5


def test_the_fingerprint_of_documents_changes_with_what_is_not_learned(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    pairs = tmp_path / "jokes.txt"
    pairs.write_text("Why?<>Because.\n" * 30)
    whole = tmp_path / "whole.txt"
    whole.write_text("Why?\nBecause.***" * 30)
    a = _gather(pairs, tokenizer, document="line", separator="<>")
    b = _gather(whole, tokenizer, document="***")
    assert [d.text for d in a.corpus] == [d.text for d in b.corpus]
    assert a.facts.fingerprint != b.facts.fingerprint


# --- memory ---

LARGE = """
import sys, threading, time
from pathlib import Path
from adapterkit.data.prepare import prepare
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
peak = 0
def anonymous():
    lines = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
tokenizer = Tokenizer(Path(sys.argv[2]))
begun = time.monotonic()
found = prepare(DataSpec(source=sys.argv[1], document="line"), tokenizer, 1024, cache=Path(sys.argv[3]))
rows = sum(1 for _ in found.train[:1000])
print(len(found.documents), found.train_tokens + found.held_out_tokens, peak, round(time.monotonic() - begun, 1))
"""


def write_lines(path: Path, size: int) -> int:
    """A file of different lines of about 60 to 400 characters; how many there are."""
    draw = np.random.default_rng(0)
    words = np.array(babble(Random(0), 5000).split())
    count = written = 0
    with path.open("w") as file:
        while written < size:
            block = "\n".join(
                " ".join(words[draw.integers(0, 5000, draw.integers(10, 70))]) for _ in range(1000)
            )
            written += file.write(block + "\n")
            count += 1000
    return count


@pytest.mark.slow
def test_a_file_of_300_mb_takes_less_than_a_gigabyte_of_memory(
    tmp_path: Path, tiny_base: Path, cache: Path
) -> None:
    """Anonymous memory, as mapped files are given back when others need the room; libraries take about 0.4 of it."""
    count = write_lines(tmp_path / "large.txt", 300_000_000)
    told = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "large.txt"), str(tiny_base), str(cache)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    documents, _, peak, _ = told.stdout.split()
    assert (int(documents), int(peak) < 1_000_000_000) == (count, True), told.stdout


@given(st.lists(st.text(alphabet="ab\n", max_size=6), min_size=1, max_size=8))
def test_stretches_end_with_a_line_and_hold_the_same_text(parts: list[str]) -> None:
    texts = [Text("a.txt", p, goes_on=i < len(parts) - 1) for i, p in enumerate(parts)]
    found = list(module._by_lines(texts))
    assert "".join(t.content for t in found) == "".join(parts)
    assert all(t.content.endswith("\n") for t in found if t.goes_on)
    assert [t.goes_on for t in found] == [True] * (len(found) - 1) + [False]
