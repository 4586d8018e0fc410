"""The report on a text: every number counted again here, in another way."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from adapterkit.data.advice import advise
from adapterkit.data.excerpts import shortened
from adapterkit.data.prepare import prepare
from adapterkit.data.report import DataReport, report
from adapterkit.data.sources import Documents
from adapterkit.data.tally import TokenCounts, histogram
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
from tests.data.words import babble, text

LENGTH = 64


def _report(tokenizer: Tokenizer, source: Path | Documents, samples: int = 3, **changes: Any) -> DataReport:
    memory = source if isinstance(source, Documents) else None
    told = {"source": str(source)} if memory is None else {}
    spec = DataSpec.model_validate(told | changes)
    found = prepare(spec, tokenizer, LENGTH, memory=memory, strict=False)
    return report(found, tokenizer, LENGTH, samples=samples)


def _pairs(tmp_path: Path, count: int, longest: int = 3) -> Path:
    draw = Random(5)
    rows = [
        {"question": text(draw, draw.randint(1, longest)), "answer": text(draw, draw.randint(1, 2))}
        for _ in range(count)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


# --- counts ---


def test_what_is_counted_is_what_is_in_the_file(text_file: Path, tokenizer: Tokenizer) -> None:
    told, lines = _report(tokenizer, text_file), text_file.read_text().splitlines()
    assert (told.documents.read, told.documents.kept, told.files) == (120, 120, 1)
    assert told.characters == sum(map(len, lines))
    assert told.bytes == sum(len(line.encode()) for line in lines)
    assert told.words == sum(len(line.split()) for line in lines)
    assert told.characters_read == len(text_file.read_text())


def test_bytes_are_those_of_utf_8(tokenizer: Tokenizer) -> None:
    words = ["Żółw", "日本語", "naïve", "plain"] * 30
    told = _report(tokenizer, Documents(words))
    assert told.bytes == sum(len(w.encode()) for w in words)
    of_text = sum(len(tokenizer.encode(w)) for w in words)
    assert told.bytes_per_token == round(told.bytes / of_text, 2)


def test_every_token_is_learned_tested_on_read_or_dropped(text_file: Path, tokenizer: Tokenizer) -> None:
    told = _report(tokenizer, text_file)
    every = sum(len(tokenizer.encode(line)) + 1 for line in text_file.read_text().splitlines())
    assert told.tokens.total == every
    assert (told.tokens.context, told.tokens.dropped) == (0, {})
    assert told.tokens.learned + told.tokens.held_out == every


def test_prompts_are_counted_as_read_only(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = _pairs(tmp_path, 60)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = _report(tokenizer, path)
    prompts = sum(len(tokenizer.encode(r["question"] + "\n")) for r in rows)
    answers = sum(len(tokenizer.encode(r["answer"])) + 1 for r in rows)
    assert told.tokens.context == prompts
    assert told.tokens.learned + told.tokens.held_out == answers


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"truncate": True},
        {"validation": "none"},
        {"packing": "none"},
        {"packing": "none", "pad_to": 32},
        {"clean": ["duplicates"]},
        {"clean": ["near-duplicates"]},
        {"clean": [{"min_words": 12}]},
    ],
)
def test_the_parts_add_up_whatever_is_asked_for(
    tmp_path: Path, tokenizer: Tokenizer, changes: dict[str, Any]
) -> None:
    told = _report(tokenizer, _pairs(tmp_path, 60, longest=8), **changes)
    t, d = told.tokens, told.documents
    assert t.learned + t.held_out + t.context + sum(t.dropped.values()) == t.total
    assert all(n > 0 for n in t.dropped.values())
    assert d.read == d.kept + sum(d.dropped.values())
    for rows in (told.rows, told.held_out_rows):
        assert rows.slots == rows.tokens + rows.padded
    assert sum(n for _, _, n in told.lengths.bins) == d.kept + d.dropped.get("near-duplicates", 0)


def test_what_truncation_drops_is_counted(tokenizer: Tokenizer) -> None:
    long = Documents([text(Random(i), 12) for i in range(40)])
    lengths = [len(tokenizer.encode(t)) + 2 for t in long.texts]
    told = _report(tokenizer, long, truncate=True)
    assert told.tokens.dropped == {"truncated": sum(max(n - LENGTH, 0) for n in lengths)}


def test_near_copies_of_what_is_tested_on_are_counted_as_dropped(tokenizer: Tokenizer) -> None:
    draft = babble(Random(1), 900)
    told = _report(tokenizer, Documents([draft, draft]))
    assert set(told.tokens.dropped) == {"near-copies of what is tested on"}
    assert sum(told.tokens.dropped.values()) > 0


def test_rows_are_as_full_as_they_are(text_file: Path, tokenizer: Tokenizer) -> None:
    found = prepare(DataSpec(source=str(text_file)), tokenizer, LENGTH)
    told = report(found, tokenizer, LENGTH)
    tokens = sum(len(row.input_ids) for row in found.train)
    assert (told.rows.rows, told.rows.tokens, told.rows.slots) == (
        len(found.train), tokens, LENGTH * len(found.train)
    )  # fmt: skip
    assert told.rows.fill == round(tokens / told.rows.slots, 4)


def test_what_is_held_out_is_told_with_its_share(text_file: Path, tokenizer: Tokenizer) -> None:
    told = _report(tokenizer, text_file)
    assert told.held_out is not None
    assert told.held_out.unit == "documents"
    assert told.held_out.count == told.documents.held_out == 120 - told.documents.learned
    assert told.held_out.share == pytest.approx(0.1, abs=0.03)


def test_nothing_held_out_is_none(text_file: Path, tokenizer: Tokenizer) -> None:
    assert _report(tokenizer, text_file, validation="none").held_out is None


# --- lengths ---


def test_lengths_are_those_of_the_documents(tokenizer: Tokenizer, text_file: Path) -> None:
    lengths = [len(tokenizer.encode(line)) + 2 for line in text_file.read_text().splitlines()]
    told = _report(tokenizer, text_file).lengths
    assert (told.shortest, told.longest) == (min(lengths), max(lengths))
    assert told.median == int(np.median(lengths))
    for low, high, count in told.bins:
        assert count == sum(low <= n <= high for n in lengths)


@pytest.mark.parametrize(
    "lengths", [[7], [1, 1], [2, 3, 5, 9, 17], [3, 2_000_000], [8, 16, 32], list(range(3, 5000, 7))]
)
def test_every_length_is_in_one_bin_and_there_are_ten_at_most(lengths: list[int]) -> None:
    bins = histogram(np.array(lengths))
    assert len(bins) <= 10
    assert [sum(low <= n <= high for low, high, _ in bins) for n in lengths] == [1] * len(lengths)
    assert [count for *_, count in bins] == [sum(a <= n <= b for n in lengths) for a, b, _ in bins]
    assert all(count for _, _, count in (bins[0], bins[-1]))


# --- copies, cleaning, what is left out ---


def test_exact_copies_are_counted(tokenizer: Tokenizer) -> None:
    texts = [babble(Random(i), 30) for i in range(40)]
    told = _report(tokenizer, Documents([*texts, texts[0], texts[0] + " ", texts[1]])).copies
    assert (told.exact, told.surplus, told.groups) == (5, 3, 2)


def test_what_a_rule_did_is_told(tokenizer: Tokenizer) -> None:
    texts = [babble(Random(i), 30) for i in range(40)]
    told = _report(tokenizer, Documents([*texts, *texts[:4]]), clean=["duplicates"])
    assert [(d["rule"], d["dropped"]) for d in told.cleaning] == [("duplicates", 4)]
    assert told.documents.dropped == {"duplicates": 4}
    assert (told.documents.read, told.documents.kept, told.copies.exact) == (44, 40, 0)


def test_files_left_out_are_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "tales").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "tales" / name).write_text(babble(Random(name), 600))
    (tmp_path / "tales" / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    told = _report(tokenizer, tmp_path / "tales")
    assert told.unreadable.count == 1
    assert told.unreadable.first[0].startswith("cover.jpg")


# --- advice ---


def test_a_language_the_tokenizer_does_not_know_gives_a_hint(tokenizer: Tokenizer) -> None:
    russian = "Жил старик со своею старухой у самого синего моря. "
    assert "not made for this language" in _report(tokenizer, Documents([russian] * 30)).tokenizer_hint


def test_english_gives_no_hint_with_the_base_that_comes_along() -> None:
    import adapterkit.model.embedded as embedded

    own = Tokenizer(Path(embedded.__file__).parent)
    texts = Path(__file__).parents[2] / "configs" / "texts"
    for name in ("shanty", "noir", "ledger"):
        assert _report(own, texts / f"{name}.txt").tokenizer_hint == ""


@pytest.mark.parametrize(
    ("longest", "advised"), [(100, 128), (200, 256), (400, 512), (900, 1024), (3000, 1024)]
)
def test_the_advised_context_holds_nearly_every_document(longest: int, advised: int) -> None:
    lengths = np.array([10] * 10 + [longest] * 90)
    told = advise(lengths, TokenCounts(1000, 100, 0, {}, 1100), 1024)
    assert told.context == advised
    assert told.whole == np.mean(lengths <= advised)


def test_the_advised_context_is_never_more_than_the_base_sees(text_file: Path, tokenizer: Tokenizer) -> None:
    assert _report(tokenizer, text_file).advice.context == LENGTH


def test_more_text_needs_fewer_passes() -> None:
    sizes = (1_000, 200_000, 1_000_000, 50_000_000)
    advised = [advise(np.array([9]), TokenCounts(n, 9, 0, {}, n), 1024).epochs for n in sizes]
    assert advised == [20, 10, 2, 1]
    untested = advise(np.array([9]), TokenCounts(1_000, 0, 0, {}, 1_000), 1024)
    assert (untested.epochs, "nothing would stop it from copying" in untested.epochs_why) == (5, True)


# --- samples ---


def test_samples_are_the_same_every_time_and_one_is_held_out(text_file: Path, tokenizer: Tokenizer) -> None:
    one, two = (_report(tokenizer, text_file).samples for _ in range(2))
    assert one == two
    assert [s.held_out for s in one] == [False, False, True]


def test_a_sample_is_a_document_of_the_text_with_its_end(text_file: Path, tokenizer: Tokenizer) -> None:
    lines = text_file.read_text().splitlines()
    for sample in _report(tokenizer, text_file, samples=8).samples:
        whole = "".join(s.text for s in sample.segments)
        assert whole in lines
        assert (sample.begins, sample.ends) == (True, True)
        assert sample.tokens == len(tokenizer.encode(whole)) + 1


def test_no_samples_are_none(text_file: Path, tokenizer: Tokenizer) -> None:
    assert _report(tokenizer, text_file, samples=0).samples == ()


def test_prompts_of_samples_are_marked_as_not_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = _pairs(tmp_path, 60)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = {(r["question"] + "\n", r["answer"]) for r in rows}
    for sample in _report(tokenizer, path).samples:
        (prompt, reads), (answer, learned) = ((s.text, s.learned) for s in sample.segments)
        assert (reads, learned) == (False, True)
        assert (prompt, answer) in told


def test_a_held_out_passage_is_shown_as_a_part(tokenizer: Tokenizer) -> None:
    novel = babble(Random(3), 3000)
    told = _report(tokenizer, Documents([novel]), samples=2).samples
    held = told[-1]
    assert held.held_out
    assert not (held.begins and held.ends)
    assert all(s.text in novel for s in held.segments)


def test_what_truncation_cuts_is_not_shown_as_learned(tokenizer: Tokenizer) -> None:
    long = Documents([text(Random(i), 12) for i in range(40)])
    for sample in _report(tokenizer, long, truncate=True).samples:
        assert not sample.ends
        assert sample.tokens == LENGTH - 1


def test_a_long_sample_says_how_much_it_hides() -> None:
    segments = [("p" * 50 + " ", False), ("word " * 500, True)]
    shown = shortened(segments)
    assert sum(len(s.text) for s in shown) + sum(s.left_out for s in shown) == 51 + 2500
    assert [s.left_out > 0 for s in shown] == [False, False, True, False]
    assert shown[0].text == segments[0][0]


def test_a_short_sample_is_whole() -> None:
    shown = shortened([("a prompt ", False), ("and more", True)])
    assert [(s.text, s.learned, s.left_out) for s in shown] == [
        ("a prompt ", False, 0),
        ("and more", True, 0),
    ]


# --- as a whole ---


def test_no_path_of_this_machine_is_in_the_report(
    text_file: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    other = tmp_path / "test.txt"
    other.write_text(babble(Random(9), 50))
    told = _report(tokenizer, text_file, validation=str(other))
    assert told.source == "tales.txt"
    assert told.held_out is not None
    assert told.held_out.unit == "documents of test.txt"
    assert str(tmp_path) not in json.dumps(told.as_dict())


def test_the_report_is_plain_json(text_file: Path, tokenizer: Tokenizer) -> None:
    told = _report(tokenizer, text_file).as_dict()
    assert json.loads(json.dumps(told)).keys() == told.keys()


def test_every_field_is_documented() -> None:
    doc = DataReport.__doc__ or ""
    assert [name for name in DataReport.__dataclass_fields__ if name not in doc] == []


def test_a_notebook_shows_a_table_and_no_markup_of_the_source(tokenizer: Tokenizer) -> None:
    shown = _report(tokenizer, Documents(["one two"] * 30, name="<b>mine"))._repr_html_()
    assert "&lt;b&gt;mine" in shown
    assert "30 of 30 read" in shown


def test_a_large_text_is_reported_without_a_look_at_each_document(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterkit.data.corpus import Corpus

    found = prepare(
        DataSpec(), tokenizer, LENGTH, memory=Documents([f"tale {i}" for i in range(5000)]), strict=False
    )
    looked: list[int] = []
    whole = Corpus.__getitem__
    monkeypatch.setattr(Corpus, "__getitem__", lambda self, i: (looked.append(1), whole(self, i))[1])
    report(found, tokenizer, LENGTH)
    assert len(looked) == 3
