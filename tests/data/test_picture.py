"""The drawing of one packed row: what transformers would see, in words a class understands."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from adapterkit.data.pack import Rows, pack
from adapterkit.data.picture import Picture, picture, visibility
from adapterkit.data.text import Document
from tests.data.words import Words, pair, whole

END = 0
FILLER = 0


def _rows(sizes: list[int], length: int, encoder: Words, **changes: object) -> Rows:
    """A document of so many tokens each, its start and end among them."""
    docs = [Document("a.txt", i, " ".join(["w"] * (n - 2))) for i, n in enumerate(sizes)]
    return pack(whole(docs, encoder), length, FILLER, **changes)  # type: ignore[arg-type]


def _drawn(sizes: list[int], length: int, **changes: object) -> Picture:
    encoder = Words()
    drawn = picture(_rows(sizes, length, encoder, **changes), encoder)
    assert drawn is not None
    return drawn


@pytest.mark.parametrize("seed", range(5))
def test_who_sees_whom_is_what_transformers_makes_of_the_positions(seed: int) -> None:
    import torch
    from transformers.masking_utils import find_packed_sequence_indices

    draw = Random(seed)
    row = _rows([draw.randint(2, 12) for _ in range(8)], 100, Words())[0]
    sequences = find_packed_sequence_indices(torch.tensor(row.position_ids[None].astype(np.int64)))
    expected = torch.tril(sequences[0][:, None] == sequences[0][None, :]).numpy()
    assert np.array_equal(visibility(row.position_ids), expected)


def test_one_document_alone_sees_all_of_its_past() -> None:
    assert np.array_equal(visibility(np.arange(6, dtype=np.int32)), np.tril(np.ones((6, 6), dtype=bool)))


def test_the_window_shows_where_two_documents_meet() -> None:
    drawn = _drawn([40, 30], 100)
    texts = [s.text for s in drawn.slots]
    at = texts.index("E")
    assert texts[at : at + 2] == ["E", "S"]
    assert (drawn.slots[at].slot, drawn.slots[at].position, drawn.slots[at + 1].position) == (40, 39, 0)
    assert len(drawn.slots) == 16


def test_a_document_does_not_see_the_one_before_when_packing_is_isolated() -> None:
    drawn = _drawn([6, 5], 20)
    expected = np.tril(np.ones((11, 11), dtype=bool))
    expected[6:, :6] = False
    assert np.array_equal(np.array(drawn.sees), expected)


def test_a_document_sees_the_one_before_when_packing_is_concat() -> None:
    drawn = _drawn([6, 5], 20, mode="concat")
    assert [list(line) for line in drawn.sees] == np.tril(np.ones((11, 11), dtype=bool)).tolist()
    assert [s.position for s in drawn.slots] == list(range(11))
    assert any("sees those before it" in line for line in drawn.lines())


def test_without_packing_padding_is_apart_and_never_learned() -> None:
    drawn = _drawn([6, 5], 20, mode="none", pad_to=8)
    assert [s.text for s in drawn.slots[-2:]] == ["pad", "pad"]
    assert [s.label for s in drawn.slots[-2:]] == [None, None]
    assert drawn.sees[6] == (False,) * 6 + (True, False)


def test_a_start_is_never_a_label_and_an_end_always_is() -> None:
    drawn = _drawn([6, 5], 20)
    labels = {s.text: s.label for s in drawn.slots if s.text in "SE"}
    assert labels == {"S": None, "E": END}


def test_a_prompt_has_no_labels() -> None:
    encoder = Words()
    drawn = picture(
        pack(whole([pair("why why", " since since"), pair("a", " b", 1)], encoder), 20, FILLER), encoder
    )
    assert drawn is not None
    assert [(s.text, s.label is None) for s in drawn.slots[:6]] == [
        ("S", True), ("why", True), ("␣why", True), ("␣since", False), ("␣since", False), ("E", False),
    ]  # fmt: skip


def test_spaces_and_line_breaks_can_be_seen() -> None:
    encoder = Words()
    drawn = picture(pack(whole([Document("a", 0, "one two\nthree")], encoder), 20, FILLER), encoder)
    assert drawn is not None
    assert [s.text for s in drawn.slots] == ["S", "one", "␣two", "⏎", "three", "E"]


def test_a_control_character_never_reaches_the_terminal() -> None:
    encoder = Words()
    drawn = picture(pack(whole([Document("a", 0, "x\x1b[2Jy")], encoder), 20, FILLER), encoder)
    assert drawn is not None
    assert not any("\x1b" in line for line in drawn.lines())


def test_a_slice_of_a_long_document_has_no_start_or_end_of_its_own() -> None:
    drawn = _drawn([30], 12)
    texts = [s.text for s in drawn.slots]
    assert texts.count("S") + texts.count("E") <= 1


def test_no_rows_are_no_picture() -> None:
    encoder = Words()
    nothing = whole([Document("a", 0, "w")], encoder).take(np.arange(0))
    assert picture(pack(nothing, 8, FILLER), encoder) is None


DRAWING = """\
slots 1 to 9 of 9 in row 1 of 1

slot  token               id   label   pos   who sees whom
   1  S                    0       ·     0   ■
   2  one                  1       1     1   ■ ■
   3  ␣two                 2       2     2   ■ ■ ■
   4  ␣three               3       3     3   ■ ■ ■ ■
   5  E                    0       0     4   ■ ■ ■ ■ ■
   6  S                    0       ·     0   · · · · · ■
   7  four                 4       4     1   · · · · · ■ ■
   8  ␣five                5       5     2   · · · · · ■ ■ ■
   9  E                    0       0     3   · · · · · ■ ■ ■ ■

S E     start and end of a document: both are <|endoftext|> (0). S is never learned, E always
label   what is learned, · for none; the model shifts them: the slot before is what predicts it
pos     a new document restarts at 0; that is why it does not see the one before
■ sees   · does not see; every slot sees only slots at or before its own"""


def test_the_drawing() -> None:
    encoder = Words()
    docs = [Document("a", 0, "one two three"), Document("a", 1, "four five")]
    drawn = picture(pack(whole(docs, encoder), 20, FILLER), encoder)
    assert drawn is not None
    assert "\n".join(drawn.lines()) == DRAWING


def test_every_line_fits_96_columns() -> None:
    assert max(map(len, _drawn([400, 300, 200], 1000).lines())) <= 96
