"""The whole way from a source to rows, and what a person is told about it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import numpy as np
import pytest

from adapterkit.data.prepare import Prepared, fingerprint, prepare
from adapterkit.data.sources import Documents
from adapterkit.errors import DataError
from adapterkit.model.tokenizer import Tokenizer
from adapterkit.recipe.schema import DataSpec
from tests.data.words import text


def _prepare(source: Path | str, tokenizer: Tokenizer, **changes: object) -> Prepared:
    return prepare(DataSpec.model_validate({"source": str(source), **changes}), tokenizer, 64)


def _poem(path: Path, words: int) -> Path:
    path.write_text(" ".join(["word"] * words))
    return path


def test_a_file_becomes_rows_to_learn_from_and_to_test_on(text_file: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(text_file, tokenizer)
    assert (found.how, len(found.documents)) == ("line", 120)
    assert sum(r.targets for r in found.train) == found.train_tokens > 0
    assert sum(r.targets for r in found.held_out) == found.held_out_tokens > 0


def test_rows_are_no_longer_than_asked_for(text_file: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(text_file, tokenizer)
    assert max(len(r.input_ids) for r in found.train + found.held_out) <= 64


def test_packing_is_isolated_unless_the_recipe_says_concat(text_file: Path, tokenizer: Tokenizer) -> None:
    def restarts(**changes: str) -> float:
        spec = DataSpec.model_validate({"source": str(text_file), **changes})
        rows = prepare(spec, tokenizer, 256).train
        return sum(int((r.position_ids == 0).sum()) for r in rows) / len(rows)

    assert restarts() > restarts(packing="concat") == 1


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
        assert _prepare(path, tokenizer).held_out
    else:
        with pytest.raises(DataError, match="1,999 words"):
            _prepare(path, tokenizer)


def test_too_little_text_is_learned_from_untested_when_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = _prepare(_poem(tmp_path / "poem.txt", 20), tokenizer, validation="none")
    assert (found.held_out, found.held_out_fingerprint, found.held_out_tokens) == ([], None, 0)
    assert found.train_tokens > 0


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


def test_texts_that_run_together_alike_have_fingerprints_of_their_own() -> None:
    assert (
        len({fingerprint(t) for t in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""])}) == 5
    )


def test_the_fingerprint_is_what_it_always_was() -> None:
    """Length as eight bytes, little end first, then UTF-8, each text in turn."""
    raw = (4).to_bytes(8, "little") + "Mül".encode() + (0).to_bytes(8, "little")
    assert fingerprint(["Mül", ""]) == hashlib.sha256(raw).hexdigest()


def test_the_held_out_fingerprint_changes_with_what_is_held_out(
    text_file: Path, tokenizer: Tokenizer
) -> None:
    a, b = (_prepare(text_file, tokenizer, validation=share) for share in (0.1, 0.3))
    assert a.held_out_fingerprint != b.held_out_fingerprint


def test_the_held_out_fingerprint_stays_when_only_learned_text_changes(
    text_file: Path, tokenizer: Tokenizer
) -> None:
    before = _prepare(text_file, tokenizer)
    held = {p.document for p in before.split.held_out}
    lines = text_file.read_text().splitlines()
    learned = next(i for i in range(120) if i not in held)
    lines[learned] = lines[learned].replace(".", "!")
    text_file.write_text("\n".join(lines))
    assert _prepare(text_file, tokenizer).held_out_fingerprint == before.held_out_fingerprint


def test_preparing_twice_gives_the_same_rows(text_file: Path, tokenizer: Tokenizer) -> None:
    one, two = _prepare(text_file, tokenizer), _prepare(text_file, tokenizer)
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(one.train, two.train, strict=True))


def test_what_was_read_is_said(text_file: Path, tokenizer: Tokenizer) -> None:
    words = len(text_file.read_text().split())
    assert _prepare(text_file, tokenizer).said == (
        f"Reading {text_file}: 1 file, 120 documents, {words:,} words. "
        "One line is one document (else: --document blank-line, file).",
    )


def test_files_left_out_are_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "tales"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(text(Random(0), 120))
    (folder / "cover.jpg").write_bytes(b"\xff\xd8")
    assert _prepare(folder, tokenizer).said[1:] == ("  left out: cover.jpg (not text)",)


@pytest.mark.parametrize("names", [("one/text.txt", "two/text.txt"), ("a[1].txt", "a[2].txt")])
def test_files_are_counted_by_what_they_are(
    tmp_path: Path, tokenizer: Tokenizer, names: tuple[str, str]
) -> None:
    for name in names:
        path = tmp_path / "tales" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(Random(0), 120))
    assert "2 files" in _prepare(tmp_path / "tales", tokenizer).said[0]


def test_texts_from_memory_need_no_file(tokenizer: Tokenizer) -> None:
    draw = Random(1)
    mine = Documents((text(draw, 8) for _ in range(40)), name="mine")
    found = prepare(DataSpec(), tokenizer, 64, memory=mine)
    assert (found.how, len(found.documents), found.said[0].split(":")[0]) == ("row", 40, "Reading mine")
