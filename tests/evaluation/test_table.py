"""The numbers of a row and how they look."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from adapterkit.errors import CheckFailed
from adapterkit.evaluation.require import parse
from adapterkit.evaluation.table import Score, Table

NOIR = Score(
    adapter="noir@3", digests=("d" * 64,), base="gpt2", text="12 unseen documents", held_out="4" * 64, length=1024,
    tokens=1200, words=900, bytes=5000, loss=math.log(27.9), base_loss=math.log(41.2), stops=0.9, copied_words=6,
)  # fmt: skip
BASE = replace(NOIR, adapter="base", digests=(), loss=NOIR.base_loss, stops=None, copied_words=None)


def test_perplexities_spread_one_sum_over_tokens_words_and_bytes() -> None:
    nats = 1200 * math.log(27.9)
    assert NOIR.perplexity == pytest.approx(27.9)
    assert NOIR.word_perplexity == pytest.approx(math.exp(nats / 900))
    assert NOIR.byte_perplexity == pytest.approx(math.exp(nats / 5000))
    assert NOIR.bits_per_byte == pytest.approx(math.log2(NOIR.byte_perplexity or 0))
    assert NOIR.base_bits_per_byte == pytest.approx(1200 * math.log2(41.2) / 5000)


def test_gain_is_the_share_by_which_perplexity_is_lower() -> None:
    assert NOIR.gain == pytest.approx(1 - 27.9 / 41.2)
    assert BASE.gain == 0


TEXT = """\
ADAPTER   BASE   TEXT                  TOKENS   PERPLEXITY           A WORD         BITS A BYTE
base      gpt2   12 unseen documents   1,200    41.2                 142.3          1.287
noir@3    gpt2   12 unseen documents   1,200    41.2 → 27.9  −32 %   142.3 → 84.6   1.287 → 1.153"""


def test_the_base_stands_in_every_row() -> None:
    assert str(Table((BASE, NOIR))) == TEXT


def test_a_notebook_shows_the_same_cells() -> None:
    html = Table((NOIR, replace(NOIR, text="<b>&")))._repr_html_()
    assert all(f"<td>{cell}</td>" in html for cell in NOIR.cells())
    assert "&lt;b&gt;&amp;" in html


def test_a_table_is_plain_json() -> None:
    told = json.loads(json.dumps(Table((NOIR,)).as_dict(), allow_nan=False))
    (row,) = told["scores"]
    assert (row["adapter"], row["base_loss"], row["gain"]) == ("noir@3", NOIR.base_loss, NOIR.gain)


def test_numbers_too_large_for_a_float_are_none_in_json_and_nothing_fails() -> None:
    wild = replace(NOIR, loss=900.0, words=1)
    told = wild.as_dict()
    assert (told["perplexity"], told["word_perplexity"], told["gain"]) == (None, None, None)
    assert "inf" in " ".join(wild.cells())
    json.dumps(told, allow_nan=False)


def test_a_text_without_words_has_no_perplexity_a_word() -> None:
    empty = replace(NOIR, words=0, bytes=0)
    assert (empty.word_perplexity, empty.byte_perplexity, empty.bits_per_byte) == (None, None, None)
    assert "-" in empty.cells()[-1]


def test_rows_of_one_text_can_be_compared() -> None:
    assert Table((BASE, NOIR)).is_one_text
    assert not Table((NOIR, replace(NOIR, held_out="5" * 64))).is_one_text
    assert not Table((NOIR, replace(NOIR, length=64))).is_one_text


def test_a_bar_that_is_met_is_silent() -> None:
    Table((BASE, NOIR)).require(parse(["gain>=0.3", "perplexity<28", "copied_words<=30", "stops>=80%"]))


def test_every_bar_that_is_missed_is_named() -> None:
    with pytest.raises(CheckFailed) as e:
        Table((NOIR,)).require(parse(["gain>=0.5", "loss<9", "perplexity<20"]))
    assert "2 of 3 checks failed" in e.value.message
    assert "noir@3: gain>=0.5 is asked, it is 0.3228" in e.value.message
    assert "perplexity<20" in e.value.message
    assert [f["check"] for f in e.value.details["failed"]] == ["gain>=0.5", "perplexity<20"]
    assert e.value.exit_code == 3


def test_the_base_is_only_held_to_a_bar_when_it_is_alone() -> None:
    Table((BASE, NOIR)).require(parse(["gain>=0.3"]))
    with pytest.raises(CheckFailed, match="base: perplexity<40"):
        Table((BASE,)).require(parse(["perplexity<40"]))


def test_what_was_not_measured_meets_no_bar() -> None:
    with pytest.raises(CheckFailed, match=r"stops>=0.5 is asked, it is not known"):
        Table((replace(NOIR, stops=None),)).require(parse(["stops>=0.5"]))
