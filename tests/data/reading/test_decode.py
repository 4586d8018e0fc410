"""Bytes become the text that was meant, whatever wrote them, and what was mended is counted."""

from __future__ import annotations

import io

import pytest

from adapterkit.data.reading import decode
from adapterkit.data.reading.decode import Decoded
from adapterkit.data.reading.kinds import Unreadable

WESTERN = {
    "German": "Größe und Übermut täten seltsam weh. Mädchen, „nein“ – schön.",
    "German title": "Für Elise",
    "German line": "Über allen Gipfeln ist Ruh",
    "French": "Où êtes-vous, mon garçon ? C’est l’été à la forêt, déjà.",
    "French prices": "Ça va ? L’œuvre « naïve » coûte 5 €…",
    "French capitals": "SOCIÉTÉ» É» déjà été là où créée",
    "Spanish": "El niño comió una piña mañana. ¿Qué pasó? 1ª y 2º",
    "Spanish greeting": "¡Qué día tan bonito, señor Núñez!",
    "Portuguese": "Não há razão; a ação é já amanhã, coração.",
    "Italian": "Perché è così? La città è più bella, però.",
    "Swedish": "Räksmörgås på Åland, är det så?",
    "Danish": "Rødgrød med fløde på øen, æble, Århus",
    "Icelandic": "Það er gaman að þessu, já. Ísland er köld eyja.",
    "English quotes": "“Don’t,” she said — it’s 5 o’clock…",
    "a row of dashes": "————————————\ncafé",
}
OTHERS = {
    "cp1251": "Привет, мир! Я помню чудное мгновенье.",
    "koi8_r": "Привет, мир! Я помню чудное мгновенье.",
    "cp1250": "Zażółć gęślą jaźń. Szła dzieweczka do laseczka.",
    "cp1253": "Καλημέρα κόσμε, τι κάνεις σήμερα;",
    "cp1254": "Bugün güneş ışığı çok güzel, değil mi?",
    "mac_roman": "“Don’t,” she said — it’s 5 o’clock…",
    "cp850": "Größe und Übermut täten seltsam weh, schön.",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたか。",
    "gb18030": "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
}


def _decoded(raw: bytes) -> tuple[str, str]:
    decoded = Decoded(io.BytesIO(raw))
    return decoded.text(), decoded.said


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 8)
    monkeypatch.setattr(decode, "PIECE", 4)


# --- Unicode ---


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
@pytest.mark.parametrize("text", ["Hello there\nhow are you €", "Я помню чудное мгновенье: ты"])
def test_every_form_of_unicode_is_read(encoding: str, said: str, text: str) -> None:
    assert _decoded(text.encode(encoding)) == (text, said)


def test_nothing_is_an_empty_text() -> None:
    assert _decoded(b"") == ("", "")


def test_utf_16_that_breaks_off_in_a_character_is_refused_with_the_place() -> None:
    with pytest.raises(Unreadable, match="UTF-16, but broken at byte 20"):
        _decoded("Müller, Max".encode("utf-16")[:-3])


def test_stray_bytes_in_utf_8_are_mended_and_counted() -> None:
    raw = "Der Müller sagte „nein“ – ".encode() + b"f\xfcr 3 \x80."
    assert _decoded(raw) == (
        "Der Müller sagte „nein“ – für 3 €.",
        "UTF-8, but for {} as Windows-1252",
    )
    decoded = Decoded(io.BytesIO(raw))
    decoded.text()
    assert decoded.strays == 2


def test_one_quote_of_utf_8_among_a_few_stray_bytes_shows_what_is_meant() -> None:
    assert _decoded("“caf".encode() + b"\xe9 \xe9 \xe9")[0] == "“café é é"


# --- before Unicode ---


@pytest.mark.parametrize("text", WESTERN.values(), ids=WESTERN)
def test_short_western_texts_are_windows_1252(text: str) -> None:
    assert _decoded(text.encode("cp1252")) == (text, "Windows-1252, as it is not UTF-8")


@pytest.mark.parametrize(("encoding", "text"), OTHERS.items(), ids=OTHERS)
def test_other_encodings_are_told_from_it(encoding: str, text: str) -> None:
    found, said = _decoded(text.encode(encoding))
    assert found == text
    assert said.endswith(", as it is not UTF-8")


def test_an_accent_late_in_a_long_text_is_seen() -> None:
    text = "word " * 40_000 + "Müller"
    assert _decoded(text.encode("cp1252"))[0] == text


# --- no text ---


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"%PDF-1.7 and so on", "PDF"),
        (b"{\\rtf1 and so on", "RTF"),
        (b"\x1f\x8b\x08", "packed with gzip"),
        (b"PK\x03\x04....", "a zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "an old Office file, or one with a password"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a picture"),
        (b"\x7fELF\0\0\0\0", "binary data"),
        (bytes(range(256)) * 4, "binary data"),
        (b"\x01\x02\x03\x04\x05\x06", "binary data"),
    ],
)
def test_what_is_no_text_is_refused_with_a_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        _decoded(raw)


def test_a_stray_zero_in_a_long_text_is_taken_out() -> None:
    assert _decoded(b"word " * 500 + b"\0" + b"end")[0] == "word " * 500 + "end"


# --- line ends ---


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_line_ends_become_one_kind(ending: str) -> None:
    assert _decoded(f"one{ending}{ending}two{ending}".encode())[0] == "one\n\ntwo\n"


def test_other_separators_are_left_alone() -> None:
    odd = "\u2028a\u0085b\x0b\x0c\n"
    assert _decoded(odd.encode())[0] == odd


# --- in pieces ---


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("shift", range(4))
def test_pieces_cut_no_character_and_no_line_end(encoding: str, shift: int) -> None:
    text = "a" * shift + "Müß\r\nüé\r\r\n" * 5
    decoded = Decoded(io.BytesIO(text.encode(encoding)))
    pieces = list(decoded.pieces())
    assert "".join(pieces) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert len(pieces) > 3


@pytest.mark.usefixtures("small_pieces")
def test_stray_bytes_that_come_late_are_mended_too() -> None:
    decoded = Decoded(io.BytesIO(b"plain words " * 4 + b"M\xfcller"))
    assert "".join(decoded.pieces()).endswith("Müller")
    assert decoded.strays == 1


@pytest.mark.usefixtures("small_pieces")
def test_binary_data_that_comes_late_is_refused_with_the_place() -> None:
    with pytest.raises(Unreadable, match="binary data from byte 12 on"):
        list(Decoded(io.BytesIO(b"plain words " + b"\0\1\2\3" * 4)).pieces())


@pytest.mark.usefixtures("small_pieces")
def test_a_large_file_is_never_asked_for_whole() -> None:
    asked: list[int] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(-1 if size is None else size)
            return super().read(size)

    list(Decoded(Stream(b"plain words " * 10)).pieces())
    assert set(asked) == {4}
