"""Text as it streams: whole characters, stop strings held back."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterkit.generation.text import Decoder, TextStream
from adapterkit.model.base import locate
from adapterkit.model.tokenizer import Tokenizer


class Bytes:
    """A decoder whose tokens are bytes, so that characters come in halves."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def stream(data: bytes, *stop: str) -> tuple[list[str], TextStream]:
    text = TextStream(Bytes(), stop)
    pieces = []
    for byte in data:
        pieces.append(text.push(byte))
        if text.stopped_by:
            break
    pieces.append(text.finish())
    return pieces, text


def test_pieces_add_up_to_the_text() -> None:
    pieces, text = stream("Käse, 海 and salt".encode())
    assert "".join(pieces) == text.text == "Käse, 海 and salt"


def test_half_a_character_is_never_shown() -> None:
    pieces, _ = stream("海".encode())
    assert pieces[:2] == ["", ""]
    assert "\ufffd" not in "".join(pieces)


def test_a_stop_string_is_not_part_of_the_text_nor_of_any_piece() -> None:
    pieces, text = stream(b"one\n\ntwo", "\n\n")
    assert ("".join(pieces), text.text, text.stopped_by) == ("one", "one", "\n\n")


def test_what_only_began_like_a_stop_string_is_shown_later() -> None:
    pieces, text = stream(b"ab<x", "<end>")
    assert pieces[2] == ""
    assert "".join(pieces) == text.text == "ab<x"


def test_the_earliest_of_several_stops_counts() -> None:
    _, text = stream(b"a.b!", "!", ".")
    assert (text.text, text.stopped_by) == ("a", ".")


class Whole:
    """The same by decoding all tokens each time: slow, and plainly right."""

    def __init__(self, decoder: Decoder, stop: tuple[str, ...]) -> None:
        self.decoder, self.stop = decoder, stop
        self.ids: list[int] = []
        self.shown = 0
        self.text = self.stopped_by = ""

    def push(self, token: int) -> str:
        self.ids.append(token)
        self.text = self.decoder.decode(self.ids)
        ends = [(self.text.index(s), s) for s in self.stop if s in self.text]
        if ends:
            at, self.stopped_by = min(ends)
            self.text = self.text[:at]
            return self.piece(at)
        held = [n for n in range(1, len(self.text) + 1) for s in self.stop if s != self.text[-n:] and s.startswith(self.text[-n:])]  # fmt: skip
        return self.piece(min(len(self.text.rstrip("\ufffd")), len(self.text) - max(held, default=0)))

    def piece(self, upto: int) -> str:
        piece, self.shown = self.text[self.shown : upto], max(self.shown, upto)
        return piece


MIXED = "The café — 海の上, naïve 🐙🏴‍☠️ \ufffd\ufffd and\r\n\n  blanks ".encode()


def _tokens(draw: random.Random, size: int, encode: Callable[[str], list[int]]) -> list[int]:
    """Words in many scripts, single tokens that may be half characters, and long runs of one of them."""
    ids: list[int] = []
    while len(ids) < 150:
        kind = draw.randrange(4)
        if kind == 0:
            at = draw.randrange(len(MIXED))
            ids += encode(MIXED[at : at + draw.randrange(1, 30)].decode(errors="ignore"))
        elif kind == 1:
            ids += [draw.randrange(size) for _ in range(draw.randrange(1, 20))]
        elif kind == 2:
            ids += [draw.randrange(size)] * draw.randrange(1, 60)
        else:
            ids += encode("🐙" * draw.randrange(1, 20))
    return ids


@pytest.mark.parametrize("kind", ["bytes", "tiny", "embedded"])
def test_every_piece_is_the_one_that_decoding_all_tokens_gives(kind: str, tiny_base: Path) -> None:
    draw = random.Random(7)
    tokenizer = None if kind == "bytes" else Tokenizer(tiny_base if kind == "tiny" else locate(kind).folder)
    decoder: Decoder = tokenizer or Bytes()
    encode = tokenizer.encode if tokenizer else lambda text: list(text.encode())
    size = tokenizer.size if tokenizer else 256
    ended = 0
    for _ in range(60):
        ids = _tokens(draw, size, encode)
        text = decoder.decode(ids)
        cuts = [draw.randrange(len(text)) for _ in range(draw.randrange(4))]
        stop = tuple(text[at : at + draw.randrange(1, 6)] for at in cuts if draw.random() < 0.7)
        ours, plain = TextStream(decoder, stop), Whole(decoder, stop)
        for token in ids:
            assert (ours.push(token), ours.text, ours.stopped_by) == (plain.push(token), plain.text, plain.stopped_by)  # fmt: skip
            if plain.stopped_by:
                ended += 1
                break
        assert ours.finish() == plain.piece(len(plain.text))
    assert 10 < ended < 55


def test_a_token_costs_the_same_however_long_the_text_is(tiny_base: Path) -> None:
    tokenizer = Tokenizer(tiny_base)

    class Counting:
        decoded = 0

        def decode(self, ids: list[int]) -> str:
            self.decoded += len(ids)
            return tokenizer.decode(ids)

    counting = Counting()
    text = TextStream(counting, ())
    for token in (tokenizer.encode("Old Tam mended nets. ") * 1000)[:1000]:
        text.push(token)
    assert counting.decoded < 40 * 1000  # all of them each time would be 500,500
