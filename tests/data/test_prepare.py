"""The whole way from a source to rows, and what a person is told about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from adapterkit.data.prepare import Prepared, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import DataError
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
from tests.data.words import babble, redrafted, targets, text


def _prepare(source: Path | str, tokenizer: Tokenizer, *, length: int = 64, strict: bool = True, **changes: Any) -> Prepared:  # fmt: skip
    spec = DataSpec.model_validate({"source": str(source), **changes})
    return prepare(spec, tokenizer, length, strict=strict)


def _poem(path: Path, words: int) -> Path:
    path.write_text(" ".join(["word"] * words))
    return path


def _lines(path: Path, count: int, seed: int = 0) -> Path:
    """A line a document, each different from all others."""
    draw = Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"Line {i} {' '.join(babble(draw, 40).split())}\n" for i in range(count)))
    return path


def _learned(found: Prepared) -> set[str]:
    return {found.documents[i].text for i in found.split.train.document.tolist()}


def _tested(found: Prepared) -> set[str]:
    return {found.split.held_out.corpus[i].text for i in found.split.held_out.document.tolist()}


# --- rows ---


def test_a_file_becomes_rows_to_learn_from_and_to_test_on(text_file: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(text_file, tokenizer)
    assert (found.how, len(found.documents)) == ("line", 120)
    assert sum(r.targets for r in found.train) == found.train_tokens > 0
    assert sum(r.targets for r in found.held_out) == found.held_out_tokens > 0


def test_rows_are_no_longer_than_asked_for(text_file: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(text_file, tokenizer)
    assert max(len(r.input_ids) for r in [*found.train, *found.held_out]) <= 64


def test_packing_is_isolated_unless_the_recipe_says_concat(text_file: Path, tokenizer: Tokenizer) -> None:
    def restarts(**changes: str) -> float:
        rows = _prepare(text_file, tokenizer, length=256, **changes).train
        return sum(int((r.position_ids == 0).sum()) for r in rows) / len(rows)

    assert restarts() > restarts(packing="concat") == 1


def test_a_row_a_document_and_padding_come_from_the_recipe(text_file: Path, tokenizer: Tokenizer) -> None:
    rows = _prepare(text_file, tokenizer, packing="none", pad_to=96, length=512).train
    assert {len(r.input_ids) for r in rows} == {96}


def test_truncation_comes_from_the_recipe_and_is_said(text_file: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(text_file, tokenizer, truncate=True, length=16)
    lengths = found.documents.lengths[found.split.train.document]
    assert found.train.cut == int(np.maximum(lengths - 16, 0).sum()) > 0
    assert f"  {found.train.cut:,} tokens are dropped, as data.truncate asks for" in found.said


def test_preparing_twice_gives_the_same_rows(text_file: Path, tokenizer: Tokenizer) -> None:
    one, two = _prepare(text_file, tokenizer), _prepare(text_file, tokenizer)
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(one.train, two.train, strict=True))


def test_kept_text_gives_the_same_rows(text_file: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    spec, cache = DataSpec(source=str(text_file)), tmp_path / "text"
    one, two, three = (prepare(spec, tokenizer, 64, cache=place) for place in (None, cache, cache))
    for other in (two, three):
        assert (one.fingerprint, one.held_out_fingerprint) == (other.fingerprint, other.held_out_fingerprint)
        assert [r.input_ids.tolist() for r in one.train] == [r.input_ids.tolist() for r in other.train]
        assert one.said == other.said


def test_texts_from_memory_need_no_file(tokenizer: Tokenizer) -> None:
    draw = Random(1)
    mine = Documents((text(draw, 8) for _ in range(40)), name="mine")
    found = prepare(DataSpec(), tokenizer, 64, memory=mine)
    assert (found.how, len(found.documents), found.said[0].split(":")[0]) == ("row", 40, "Reading mine")


# --- too little, nothing, all masked ---


def test_too_little_text_says_how_much_there_is_and_what_to_do(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = _poem(tmp_path / "poem.txt", 212)
    with pytest.raises(DataError, match=r"has 212 words in 1 document; about 2,000 are needed") as caught:
        _prepare(path, tokenizer)
    assert (caught.value.code, caught.value.details) == (
        "too-little-text",
        {"words": 212, "documents": 1, "needed": 2000},
    )
    assert f"adapterkit train {path} --validation none" in caught.value.hint


@pytest.mark.parametrize(("words", "enough"), [(1999, False), (2000, True)])
def test_two_thousand_words_are_enough(
    tmp_path: Path, tokenizer: Tokenizer, words: int, enough: bool
) -> None:
    path = _poem(tmp_path / "poem.txt", words)
    if enough:
        assert len(_prepare(path, tokenizer).held_out)
    else:
        with pytest.raises(DataError, match="1,999 words"):
            _prepare(path, tokenizer)


def test_chinese_is_counted_though_it_has_no_spaces(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "tale.txt"
    path.write_text("日本語の文章はこのように書かれる。" * 300)
    assert 2000 <= _prepare(path, tokenizer).words <= 3000


def test_a_look_at_too_little_text_is_not_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_poem(tmp_path / "poem.txt", 212), tokenizer, strict=False)
    assert (found.words, found.train_tokens > 0, found.held_out_tokens > 0) == (212, True, True)


def test_too_little_text_is_learned_from_untested_when_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_poem(tmp_path / "poem.txt", 20), tokenizer, validation="none")
    assert (len(found.held_out), found.held_out_fingerprint, found.held_out_tokens) == (0, None, 0)
    assert found.train_tokens > 0


def test_nothing_left_after_cleaning_names_the_rule(text_file: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"no document of .* is left after cleaning \(120 were read\).*left out 120") as caught:  # fmt: skip
        _prepare(text_file, tokenizer, clean=[{"min_words": 500}])
    assert caught.value.code == "nothing-left"
    assert "data.clean" in caught.value.hint


def _pairs(path: Path, prompt: int, count: int = 80) -> Path:
    """Lines with a prompt of so many words and a short completion."""
    draw = Random(3)
    path.write_text(
        "".join(f"{' '.join(babble(draw, prompt).split())}<>{text(draw, 3)}\n" for _ in range(count))
    )
    return path


def test_prompts_that_fill_whole_rows_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"stretches of .* have nothing to learn: prompts fill whole rows of 64 tokens") as caught:  # fmt: skip
        _prepare(_pairs(tmp_path / "pairs.txt", 100), tokenizer)
    assert (caught.value.code, "--max-length" in caught.value.hint) == ("masked", True)


def test_a_look_at_prompts_that_fill_whole_rows_is_not_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_pairs(tmp_path / "pairs.txt", 100), tokenizer, strict=False)
    assert found.train.masked > len(found.train.pieces) / 20
    assert f"  left out, as nothing in it is learned: {found.train.masked:,} stretches" in found.said


def test_pairs_longer_than_a_row_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_pairs(tmp_path / "pairs.txt", 10), tokenizer, length=100)
    assert found.long == int((found.documents.lengths > 100).sum()) > 0
    assert any(line.startswith("  longer than a row of 100") and line.endswith(f": {found.long:,} pairs or chats") for line in found.said)  # fmt: skip


def test_a_prompt_is_read_but_never_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"{'Q' * (i % 5 + 1)} {i}<>{text(Random(i), 4)}\n" for i in range(80)))
    found = _prepare(path, tokenizer)
    learned = "".join(tokenizer.decode([t]) for rows in (found.train, found.held_out) for t in targets(rows))
    assert ("Q" in learned, "Q" in "".join(_learned(found))) == (False, True)
    assert found.train_tokens + found.held_out_tokens < int(found.documents.lengths.sum()) - 80


# --- fingerprints ---


def test_nothing_held_out_learns_from_every_document(text_file: Path, tokenizer: Tokenizer) -> None:
    some, every = _prepare(text_file, tokenizer), _prepare(text_file, tokenizer, validation="none")
    assert every.train_tokens == some.train_tokens + some.held_out_tokens


def test_the_fingerprint_changes_with_the_text(text_file: Path, tokenizer: Tokenizer) -> None:
    before = _prepare(text_file, tokenizer).fingerprint
    text_file.write_text(text_file.read_text().replace("cat", "dog", 1))
    assert _prepare(text_file, tokenizer).fingerprint != before


def test_the_fingerprint_is_of_the_text_and_not_of_its_file(
    text_file: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(b"\xef\xbb\xbf" + text_file.read_bytes().replace(b"\n", b"\r\n"))
    assert _prepare(other, tokenizer).fingerprint == _prepare(text_file, tokenizer).fingerprint


def test_the_fingerprint_changes_with_the_cut(text_file: Path, tokenizer: Tokenizer) -> None:
    line, file = (_prepare(text_file, tokenizer, document=how) for how in ("line", "file"))
    assert line.fingerprint != file.fingerprint


def test_the_held_out_fingerprint_changes_with_what_is_held_out(
    text_file: Path, tokenizer: Tokenizer
) -> None:
    a, b = (_prepare(text_file, tokenizer, validation=share) for share in (0.1, 0.3))
    assert a.held_out_fingerprint != b.held_out_fingerprint


def test_the_held_out_fingerprint_changes_with_what_of_it_is_learned(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """The same characters, once as pairs: their scores can't be compared."""
    learn = _lines(tmp_path / "learn.txt", 80)
    found = []
    for name, line in (("pairs.csv", '"Why?","Because."'), ("whole.csv", '"Why?\nBecause."')):
        (tmp_path / name).write_text(
            ("prompt,completion\n" if name == "pairs.csv" else "text\n") + f"{line}\n"
        )
        found.append(_prepare(learn, tokenizer, document="file", validation=str(tmp_path / name)))
    assert [_tested(f) for f in found] == [{"Why?\nBecause."}] * 2
    assert found[0].held_out_fingerprint != found[1].held_out_fingerprint


def test_the_held_out_fingerprint_stays_when_only_learned_text_changes(
    text_file: Path, tokenizer: Tokenizer
) -> None:
    before = _prepare(text_file, tokenizer)
    held = set(before.split.held_out.document.tolist())
    lines = text_file.read_text().splitlines()
    learned = next(i for i in range(120) if i not in held)
    lines[learned] = lines[learned].replace(".", "!")
    text_file.write_text("\n".join(lines))
    assert _prepare(text_file, tokenizer).held_out_fingerprint == before.held_out_fingerprint


# --- tested on a file ---


@pytest.fixture
def learn(tmp_path: Path) -> Path:
    return _lines(tmp_path / "learn.txt", 80)


def test_a_file_may_be_tested_on(learn: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    other = _lines(tmp_path / "test.txt", 60, seed=9)
    found = _prepare(learn, tokenizer, validation=str(other))
    assert _learned(found) == set(learn.read_text().splitlines())
    assert _tested(found) == set(other.read_text().splitlines())
    assert (found.split.unit, found.split.units) == ("documents of test.txt", 60)
    assert (found.leaks.found, found.leaks.removed) == ((), False)


def test_a_file_to_test_on_is_cut_like_the_text(learn: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Ten lines alone would be taken for one document."""
    found = _prepare(learn, tokenizer, validation=str(_lines(tmp_path / "test.txt", 10, seed=9)))
    assert (found.how, found.split.units) == ("line", 10)


def test_a_table_may_be_tested_with_a_table(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, seed in (("learn.csv", 0), ("test.csv", 1)):
        draw = Random(seed)
        (tmp_path / name).write_text(
            "text\n" + "".join(f'"{text(draw, 3)}\n{text(draw, 3)}"\n' for _ in range(50))
        )
    found = _prepare(tmp_path / "learn.csv", tokenizer, validation=str(tmp_path / "test.csv"))
    assert (found.how, len(found.documents), found.split.units) == ("row", 50, 50)


def test_a_few_pairs_are_tested_as_pairs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Ten lines alone would not be taken for pairs."""
    test = _pairs(tmp_path / "test.txt", 5, count=10)
    test.write_text(test.read_text().replace("<>", " ZZZ<>"))
    found = _prepare(_pairs(tmp_path / "learn.txt", 6), tokenizer, validation=str(test))
    learned = "".join(tokenizer.decode([t]) for t in targets(found.held_out))
    assert (found.split.units, "ZZZ" in "".join(_tested(found)), "ZZZ" in learned) == (10, True, False)
    assert not any("<>" in t for t in _tested(found))


def _table(path: Path, columns: str, seed: int) -> Path:
    draw = Random(seed)
    path.parent.mkdir(exist_ok=True)
    rows = (",".join(f'"{c} {text(draw, 4)}"' for c in columns.split(",")) for _ in range(50))
    path.write_text("\n".join([columns, *rows]))
    return path


def test_a_table_is_tested_by_the_columns_that_are_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A column that would be found by itself comes first otherwise."""
    learn, test = _table(tmp_path / "learn.csv", "story", 0), _table(tmp_path / "test.csv", "text,story", 1)
    found = _prepare(learn, tokenizer, validation=str(test))
    assert {t.split()[0] for t in _tested(found)} == {"story"}
    with pytest.raises(DataError, match=r"has no column 'story'") as caught:
        _prepare(learn, tokenizer, validation=str(_table(tmp_path / "other.csv", "text", 2)))
    assert caught.value.code == "no-text-column"


def test_tables_that_differ_leave_a_table_to_its_own_columns(tmp_path: Path, tokenizer: Tokenizer) -> None:
    _table(tmp_path / "all" / "a.csv", "story", 0)
    _table(tmp_path / "all" / "b.csv", "prompt,completion", 1)
    test = _table(tmp_path / "test.csv", "body", 2)
    found = _prepare(tmp_path / "all", tokenizer, length=512, validation=str(test))
    assert (found.how, found.split.units) == ("row", 50)


@pytest.mark.parametrize(("name", "units"), [("lines.txt", 1), ("pairs.txt", 80), ("stories.txt", 20)])
def test_a_file_of_a_mixed_folder_is_tested_as_it_would_be_learned(
    tmp_path: Path, tokenizer: Tokenizer, name: str, units: int
) -> None:
    folder = tmp_path / "all"
    _lines(folder / "lines.txt", 60)
    _pairs(folder / "pairs.txt", 6)
    (folder / "stories.txt").write_text("".join(f"<sos>{text(Random(i), 6)}<eos>\n" for i in range(20)))
    found = _prepare(folder, tokenizer, validation=str(folder / name))
    assert (found.how, found.split.units, len(_learned(found))) == ("file", units, 101 - units)
    assert found.leaks.found == ()


def test_a_file_to_test_on_is_looked_up_beside_the_recipe(
    learn: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    _lines(tmp_path / "recipes" / "test.txt", 60, seed=9)
    spec = DataSpec(source=str(learn), validation="test.txt")
    assert prepare(spec, tokenizer, 64, tmp_path / "recipes").split.units == 60


def test_a_small_text_may_be_learned_when_a_file_is_tested_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_lines(tmp_path / "few.txt", 3), tokenizer, document="line", validation=str(_lines(tmp_path / "test.txt", 3, seed=9)))  # fmt: skip
    assert (len(found.documents), found.split.units) == (3, 3)


@pytest.mark.parametrize("name", ["b.txt", "deep/b.txt"])
def test_a_file_of_the_folder_that_is_tested_on_is_not_learned(
    tmp_path: Path, tokenizer: Tokenizer, name: str
) -> None:
    """Whether it would be cut by lines alone or not."""
    tales = tmp_path / "tales"
    for each, seed in (("a.txt", 0), (name, 1), ("c.txt", 2)):
        _lines(tales / each, 60, seed)
    found = _prepare(tales, tokenizer, validation=str(tales / name))
    held = {(tales / name).read_text().strip()}
    assert (found.how, _tested(found), _learned(found) & held) == ("file", held, set())
    assert len(_learned(found)) == 2
    assert found.leaks.found == ()


def test_lines_of_the_folder_that_are_tested_on_are_not_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tales = tmp_path / "tales"
    for name, seed in (("a.txt", 0), ("b.txt", 1)):
        _lines(tales / name, 60, seed)
    found = _prepare(tales, tokenizer, document="line", validation=str(tales / "b.txt"))
    assert _tested(found) == set((tales / "b.txt").read_text().splitlines())
    assert _learned(found) == set((tales / "a.txt").read_text().splitlines())


def test_all_in_the_file_that_is_tested_on_is_an_error(learn: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"all of .*learn\.txt is in .*learn\.txt, so nothing is left to learn from"):  # fmt: skip
        _prepare(learn, tokenizer, validation=str(learn))


def test_a_file_to_test_on_that_is_not_there_is_an_error(learn: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"there is no file 'tset\.txt' to test on") as caught:
        _prepare(learn, tokenizer, validation="tset.txt")
    assert (caught.value.code, "--validation" in caught.value.hint) == ("no-such-text", True)


def test_a_file_to_test_on_without_a_document_left_is_an_error(
    learn: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "test.txt").write_text("Too short.\nThis too.\n")
    with pytest.raises(DataError, match=r"no document of .*test\.txt is left after cleaning"):
        _prepare(learn, tokenizer, validation=str(tmp_path / "test.txt"), clean=[{"min_words": 5}])


def test_memory_may_be_tested_with_a_file_of_this_folder(tokenizer: Tokenizer) -> None:
    """Copies are told of, and not taken away unasked."""
    draw = Random(4)
    lines = [text(draw, 8) for _ in range(60)]
    Path("test.txt").write_text(f"{lines[7]}\n")
    found = prepare(DataSpec(validation="test.txt"), tokenizer, 64, memory=Documents(lines, name="mine"))
    assert len(_learned(found)) == 60
    assert [(a, b) for a, b, _ in found.leaks.found] == [("mine[7]", "test.txt")]


# --- leaks, copies, drafts ---


def _leaky(tmp_path: Path) -> tuple[Path, Path]:
    """Line 3 of what is learned has a whole line that is tested on, line 5 is a copy of a short one."""
    learn, test = _lines(tmp_path / "learn.txt", 80), _lines(tmp_path / "test.txt", 60, seed=9)
    mine, theirs = learn.read_text().splitlines(), test.read_text().splitlines()
    theirs[50] = "Short one."
    mine[3], mine[5] = f"{mine[3]} {theirs[20]}", "Short  one."
    learn.write_text("\n".join(mine))
    test.write_text("\n".join(theirs))
    return learn, test


def test_documents_that_hold_what_is_tested_on_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    learn, test = _leaky(tmp_path)
    found = _prepare(learn, tokenizer, validation=str(test))
    assert {(a, b): share for a, b, share in found.leaks.found} == {
        ("learn.txt #6", "test.txt #51"): 1.0,
        ("learn.txt #4", "test.txt #21"): pytest.approx(1.0, abs=0.1),
    }
    assert (found.leaks.removed, len(_learned(found))) == (False, 80)
    assert "  with most of what is tested on in it: 2 documents, still learned from (data.clean: [leaks] leaves them out)" in found.said  # fmt: skip


def test_documents_that_hold_what_is_tested_on_are_left_out_when_asked(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    learn, test = _leaky(tmp_path)
    found = _prepare(learn, tokenizer, validation=str(test), clean=["leaks"])
    lines = learn.read_text().splitlines()
    assert set(lines) - _learned(found) == {lines[3], lines[5]}
    assert "  with most of what is tested on in it: 2 documents, left out of training" in found.said


def test_a_document_that_holds_several_is_counted_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    learn, test = _leaky(tmp_path)
    lines = learn.read_text().splitlines()
    lines[3] += " " + test.read_text().splitlines()[21]
    learn.write_text("\n".join(lines))
    found = _prepare(learn, tokenizer, validation=str(test), clean=["leaks"])
    assert (len(found.leaks.found), len(_learned(found))) == (3, 78)
    assert any(line.startswith("  with most of what is tested on in it: 2 documents") for line in found.said)


def test_nothing_left_when_leaks_are_left_out_is_an_error(
    learn: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    test = tmp_path / "test.txt"
    test.write_text(learn.read_text().replace("Line", "Verse"))
    with pytest.raises(DataError, match=r"all of .*learn\.txt is in .*test\.txt, so nothing is left"):
        _prepare(learn, tokenizer, validation=str(test), clean=["leaks"])


def test_near_duplicates_are_left_out_when_asked(learn: Path, tokenizer: Tokenizer) -> None:
    lines = learn.read_text().splitlines()
    copies = [f"{line} And more." for line in lines[:10]] + lines[10:20]
    learn.write_text("\n".join(lines + copies))
    asked, not_asked = (_prepare(learn, tokenizer, clean=rules) for rules in (["near-duplicates"], []))
    assert (not_asked.duplicates, len(_learned(not_asked) | _tested(not_asked))) == (
        0,
        len({*lines, *copies}),
    )
    assert asked.duplicates == 20
    assert _learned(asked) | _tested(asked) == set(lines)
    assert "  near-duplicates: 20 documents left out" in asked.said


def test_drafts_are_kept_on_one_side_and_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    draw = Random(6)
    for i in range(25):
        chapter = babble(draw, 150)
        (tmp_path / "book").mkdir(exist_ok=True)
        (tmp_path / "book" / f"{i:02}.txt").write_text(chapter)
        if i % 5 == 0:
            (tmp_path / "book" / f"{i:02} draft.txt").write_text(redrafted(draw, chapter))
    found = _prepare(tmp_path / "book", tokenizer)
    assert ("00 draft.txt", "00.txt") in {tuple(sorted(g)) for g in found.groups}
    learned, tested = ({s.removesuffix(" draft.txt").removesuffix(".txt") for s in _sources(p)} for p in (found.split.train, found.split.held_out))  # fmt: skip
    assert learned & tested == set()
    assert any(line.startswith("  near-copies kept together: ") for line in found.said)


def _sources(pieces: Any) -> list[str]:
    return [pieces.corpus[i].source for i in pieces.document.tolist()]


def test_two_drafts_of_one_novel_are_tested_on_what_is_not_learned(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    draw = Random(7)
    novel = babble(draw, 4000)
    (tmp_path / "book").mkdir()
    for name, told in (("first.txt", novel), ("second.txt", redrafted(draw, novel))):
        (tmp_path / "book" / name).write_text(told)
    found = _prepare(tmp_path / "book", tokenizer)
    assert found.held_out_tokens > 0
    assert found.split.dropped > 0
    assert f"  {found.split.dropped:,} tokens of near-copies of what is tested on are not learned from" in found.said  # fmt: skip


# --- what is said ---


def test_what_was_read_is_said(text_file: Path, tokenizer: Tokenizer) -> None:
    words = len(text_file.read_text().split())
    assert _prepare(text_file, tokenizer).said[0] == (
        f"Reading {text_file}: 1 file, 120 documents, {words:,} words. "
        "One line is one document (else: --document blank-line, file)."
    )


def test_files_left_out_are_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "tales"
    for name, seed in (("a.txt", 0), ("b.txt", 1)):
        _lines(folder / name, 60, seed)
    (folder / "cover.jpg").write_bytes(b"\xff\xd8")
    assert _prepare(folder, tokenizer).said[1:] == ("  left out: cover.jpg (not text)",)


@pytest.mark.parametrize("names", [("one/text.txt", "two/text.txt"), ("a[1].txt", "a[2].txt")])
def test_files_are_counted_by_what_they_are(
    tmp_path: Path, tokenizer: Tokenizer, names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        _lines(tmp_path / "tales" / name, 60, seed)
    assert "2 files" in _prepare(tmp_path / "tales", tokenizer).said[0]


def test_joined_lines_and_documents_without_the_separator_are_said(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    from textwrap import fill

    wrapped = tmp_path / "wrapped.txt"
    wrapped.write_text("\n\n".join(fill(text(Random(i), 12), 70) for i in range(30)))
    assert any(line.startswith("  lines broken at ") for line in _prepare(wrapped, tokenizer).said)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"Why {i}?<>{text(Random(i), 4)}\n" for i in range(80)) + "No pair.\n")
    assert "  1 document without '<>', learned whole" in _prepare(pairs, tokenizer).said


def test_progress_reaches_who_asks(
    text_file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterkit.data import gather

    monkeypatch.setattr(gather, "TELL_EVERY", 0.0)
    told: list[int] = []
    tell: Callable[[int, int], None] = lambda documents, characters: told.append(documents)  # noqa: E731
    prepare(DataSpec(source=str(text_file)), tokenizer, 64, progress=tell)
    assert told[-1] == 120
