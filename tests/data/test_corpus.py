"""Documents with their tokens in Arrow: the same on disk and in memory, whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from adapterkit.data import corpus as module
from adapterkit.data.corpus import Corpus, Store, batches
from adapterkit.data.encode import Encoder
from adapterkit.data.text import Document
from adapterkit.data.words import count_words
from adapterkit.model.tokenizer import Tokenizer
from tests.data.words import Numbered, Words, corpus, documents, pair

KEY = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where prepared text is kept; made when it is needed."""
    return tmp_path / "text"


@pytest.fixture
def docs() -> list[Document]:
    found = documents(Random(0), 60, 6, odd=0.3)
    found[7] = pair("Why did the naïve baker 🙂\n", "burn it?", 7)
    found[40] = Document("b.txt", 3, "").rebuilt([("U: Hi\n", False), ("A: Ho\n", True), ("U: Bye\n", False), ("A: Bye", True)])  # fmt: skip
    found[59] = Document("c.txt", 0, "")
    return found


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents are in many batches."""
    monkeypatch.setattr(module, "BATCH", 500)


def _build(folder: Path, docs: list[Document], encoder: Encoder, key: str = KEY) -> Corpus:
    return Store(folder).build(key, batches(docs, encoder), encoder, lambda: {"count": len(docs)})


def _all(found: Corpus) -> dict[str, Any]:
    """Everything a corpus tells."""
    return {
        "documents": list(found),
        "texts": list(found.texts()),
        "places": list(found.places()),
        "tokens": [found.tokens(i).tolist() for i in range(len(found))],
        "context": [found.context(i).tolist() for i in range(len(found))],
        "lengths": found.lengths.tolist(),
        "has_context": found.has_context.tolist(),
        "marks": found.marks.tolist(),
        "words": found.words.tolist(),
        "characters": found.characters.tolist(),
    }


# --- one corpus ---


def test_documents_come_back_as_they_were(docs: list[Document], tokenizer: Tokenizer) -> None:
    assert list(corpus(docs, tokenizer)) == docs


@pytest.mark.usefixtures("small_batches")
def test_batches_make_no_difference(
    docs: list[Document], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = _all(corpus(docs, tokenizer))
    monkeypatch.setattr(module, "BATCH", 1 << 30)
    assert many == _all(corpus(docs, tokenizer))


@pytest.mark.usefixtures("small_batches")
def test_a_corpus_on_disk_is_the_one_in_memory(
    docs: list[Document], tokenizer: Tokenizer, folder: Path
) -> None:
    memory = _all(corpus(docs, tokenizer))
    built = _all(_build(folder, docs, tokenizer))
    loaded = Store(folder).load(KEY)
    assert loaded is not None
    assert (built, _all(loaded[0]), loaded[1]) == (memory, memory, {"count": 60})


def test_counts_are_those_of_the_texts(docs: list[Document], tokenizer: Tokenizer) -> None:
    found = corpus(docs, tokenizer)
    assert found.words.tolist() == [count_words(d.text) for d in docs]
    assert found.characters.tolist() == [len(d.text) for d in docs]
    assert found.lengths.tolist() == [len(found.tokens(i)) for i in range(60)]
    assert [i for i in range(60) if found.has_context[i]] == [7, 40]


def test_a_part_of_the_tokens_is_a_slice_of_them(docs: list[Document], tokenizer: Tokenizer) -> None:
    found = corpus(docs, tokenizer)
    for i in range(60):
        every = found.tokens(i).tolist()
        assert found.tokens(i, 2, 9).tolist() == every[2:9]
        assert found.tokens(i, 1, 10_000).tolist() == every[1:]


def test_a_corpus_is_sliced_and_counted_from_the_end_like_a_list(
    docs: list[Document], tokenizer: Tokenizer
) -> None:
    found = corpus(docs, tokenizer)
    assert (found[3:50:7], found[-1], found[-3:]) == (docs[3:50:7], docs[-1], docs[-3:])
    for index in (60, -61):
        with pytest.raises(IndexError):
            found[index]


def test_no_documents_are_a_corpus_too(tokenizer: Tokenizer, folder: Path) -> None:
    for found in (corpus([], tokenizer), _build(folder, [], tokenizer)):
        told = _all(found)
        assert (len(found), {k: v for k, v in told.items() if v}) == (0, {})


def test_copies_have_the_same_mark_and_others_do_not() -> None:
    found = corpus(
        [Document("a.txt", i, t) for i, t in enumerate(["one two", " one\ntwo ", "one three"])], Words()
    )
    a, b, c = found.marks.tolist()
    assert (a == b, a == c) == (True, False)


def test_tokens_take_two_bytes_where_the_vocabulary_allows(folder: Path) -> None:
    small, large = Words(), Numbered()
    for encoder, kind in ((small, pa.uint16()), (large, pa.int32())):
        _build(folder, [Document("a.txt", 0, "one two")], encoder, encoder.fingerprint)
        with pa.memory_map(str(folder / encoder.fingerprint / "documents.arrow")) as file:
            assert pa.ipc.open_file(file).schema.field("tokens").type.value_type == kind


def test_the_largest_token_of_a_vocabulary_of_65536_fits() -> None:
    class Large(Words):
        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            return [[65_535] for _ in texts]

    assert corpus([Document("a.txt", 0, "x")], Large()).tokens(0).tolist() == [0, 65_535, 0]


def test_documents_are_encoded_as_they_come() -> None:
    """The first batch is there when those of the second are read, however many there are."""

    def endless() -> Iterator[Document]:
        while True:
            yield Document("a.txt", 0, "word " * 100_000)

    assert next(batches(endless(), Words())).num_rows == 3


# --- whole or not there ---


def _flip(path: Path, keep: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])


@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["documents.arrow", "facts.json"])
def test_what_is_cut_off_does_not_load_and_is_built_again(
    folder: Path, docs: list[Document], name: str, keep: float
) -> None:
    before = _all(_build(folder, docs, Words()))
    _flip(folder / KEY / name, keep)
    assert Store(folder).load(KEY) is None
    assert _all(_build(folder, docs, Words())) == before
    assert Store(folder).load(KEY) is not None


@pytest.mark.parametrize("name", ["documents.arrow", "facts.json"])
def test_what_is_missing_does_not_load(folder: Path, docs: list[Document], name: str) -> None:
    _build(folder, docs, Words())
    (folder / KEY / name).unlink()
    assert Store(folder).load(KEY) is None


def test_nothing_is_there_before_it_is_built(folder: Path) -> None:
    assert Store(folder).load(KEY) is None


def test_an_error_while_building_leaves_nothing(folder: Path, docs: list[Document]) -> None:
    def broken() -> Iterator[Document]:
        yield from docs
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        Store(folder).build(KEY, batches(broken(), Words()), Words(), dict)
    assert list(folder.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_an_os_error(folder: Path, docs: list[Document]) -> None:
    folder.write_text("a file in its place")
    with pytest.raises(OSError, match="text"):
        _build(folder, docs, Words())


BUILD = """
import sys
from pathlib import Path
from adapterkit.data.corpus import Store, batches
from adapterkit.data.text import Document
from tests.data.words import Words
def documents():
    for i in range(200):
        yield Document("a.txt", i, f"{i} " + "word " * 1000)
    print("half", flush=True)
    sys.stdin.read()
encoder = Words()
Store(Path(sys.argv[1])).build(sys.argv[2], batches(documents(), encoder), encoder, dict)
"""


def test_a_killed_build_leaves_nothing_that_loads(folder: Path, docs: list[Document]) -> None:
    building = subprocess.Popen(
        [sys.executable, "-c", f"import adapterkit.data.corpus as c; c.BATCH = 1 << 16\n{BUILD}", str(folder), KEY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert building.stdin is not None
    assert building.stdout is not None
    with building.stdin, building.stdout:
        assert building.stdout.readline() == b"half\n"
        os.kill(building.pid, signal.SIGKILL)
        building.wait(30)
    left = [p.name for p in folder.iterdir()]
    assert (len(left), left[0][0], Store(folder).load(KEY)) == (1, ".", None)
    assert len(_build(folder, docs, Words())) == 60


def _race(folder: Path, barrier: Any, out: Any) -> None:
    docs = documents(Random(1), 200, 6)
    for turn in range(10):
        barrier.wait(60)
        found = _build(folder, docs, Words(), f"key{turn}")
        out.put((len(found), [d.text for d in found] == [d.text for d in docs], found.tokens(199).tolist()))


def test_processes_that_build_the_same_at_once_all_get_it_whole(folder: Path) -> None:
    """Ten times over, as the moment that matters is short."""
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(3), context.Queue()
    racers = [context.Process(target=_race, args=(folder, barrier, out)) for _ in range(3)]
    for racer in racers:
        racer.start()
    told = [out.get(timeout=120) for _ in range(30)]
    for racer in racers:
        racer.join(60)
    wanted = corpus(documents(Random(1), 200, 6), Words()).tokens(199).tolist()
    assert {(count, same, len(tokens)) for count, same, tokens in told} == {(200, True, len(wanted))}
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"key{i}" for i in range(10))


def test_who_comes_second_does_not_take_away_what_is_whole(folder: Path, docs: list[Document]) -> None:
    """Someone may be about to map it."""
    _build(folder, docs, Words())
    first = (folder / KEY / "documents.arrow").stat().st_ino
    assert _all(_build(folder, docs, Words())) == _all(corpus(docs, Words()))
    assert (folder / KEY / "documents.arrow").stat().st_ino == first
    assert [p.name for p in folder.iterdir()] == [KEY]


# --- arrays beside it ---


def _never() -> np.ndarray[Any, Any]:
    raise AssertionError("it was made again")


def test_an_array_is_made_once(folder: Path, docs: list[Document]) -> None:
    _build(folder, docs, Words())
    made = Store(folder).array(KEY, "groups", lambda: np.arange(5))
    assert Store(folder).array(KEY, "groups", _never).tolist() == made.tolist()


@pytest.mark.parametrize("keep", [0, 0.3, 0.99])
def test_an_array_that_is_cut_off_is_made_again(folder: Path, docs: list[Document], keep: float) -> None:
    _build(folder, docs, Words())
    Store(folder).array(KEY, "groups", lambda: np.arange(50))
    _flip(folder / KEY / "groups.npy", keep)
    assert Store(folder).array(KEY, "groups", lambda: np.arange(50)).tolist() == list(range(50))
    assert Store(folder).array(KEY, "groups", _never).tolist() == list(range(50))


def test_an_array_without_a_place_is_made_every_time(folder: Path) -> None:
    store = Store(folder)
    assert [store.array(KEY, "groups", lambda: np.arange(3)).tolist() for _ in range(2)] == [[0, 1, 2]] * 2


# --- what is kept ---


def _aged(folder: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))


def test_the_least_recently_used_goes_when_there_is_too_much(
    folder: Path, docs: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    for hours, key in ((3, "three"), (2, "two"), (1, "one")):
        _build(folder, docs, Words(), key)
        _aged(folder / key, hours)
    Store(folder).load("three")  # which makes it the newest
    size = sum(f.stat().st_size for f in (folder / "one").iterdir())
    monkeypatch.setattr(module, "KEEP", int(2.5 * size))
    _build(folder, docs, Words(), "new")
    assert sorted(p.name for p in folder.iterdir()) == ["new", "one", "three"]


def test_what_was_just_built_stays_however_large(
    folder: Path, docs: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP", 10)
    for key in ("one", "two"):
        _build(folder, docs, Words(), key)
    assert [p.name for p in folder.iterdir()] == ["two"]


def test_unfinished_folders_go_after_a_day(folder: Path, docs: list[Document]) -> None:
    for name, hours in ((".old", 25), (".new", 23)):
        (folder / name).mkdir(parents=True)
        (folder / name / "documents.arrow").write_bytes(b"half")
        _aged(folder / name, hours)
    _build(folder, docs, Words())
    assert sorted(p.name for p in folder.iterdir()) == [".new", KEY]


def test_what_others_take_away_meanwhile_does_not_stop_a_build(
    folder: Path, docs: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes prune at once."""
    _build(folder, docs, Words(), "gone")
    iterdir = Path.iterdir

    def late(self: Path) -> Iterator[Path]:
        yield from iterdir(self)
        if self == folder:
            yield folder / "gone" / "already"
        if self.name == "gone":
            raise FileNotFoundError(2, "gone", str(self))

    monkeypatch.setattr(Path, "iterdir", late)
    assert len(_build(folder, docs, Words())) == 60


def test_facts_keep_every_letter(folder: Path) -> None:
    Store(folder).build(KEY, [], Words(), lambda: {"said": ["naïve 🙂"]})
    assert json.loads((folder / KEY / "facts.json").read_text(encoding="utf-8")) == {"said": ["naïve 🙂"]}
