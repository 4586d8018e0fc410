"""Text as it streams: whole characters, stop strings held back."""

from __future__ import annotations

from adapterkit.generation.text import TextStream


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
