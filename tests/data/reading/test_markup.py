"""HTML becomes what a person would see of it, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.markup import read_html, to_text
from adapterkit.data.sources import read
from adapterkit.recipe.schema import DataSpec


def _read(raw: bytes) -> tuple[str, str]:
    text, decoded = read_html(io.BytesIO(raw))
    return text, decoded.said if decoded else ""


def test_paragraphs_stay_apart_and_tags_go() -> None:
    page = "<html><head><title>t</title></head><body><h1>One</h1><p>two <b>three</b>\nfour<br>five</p><p>six &amp; so</p>"
    assert to_text(page) == "One\n\ntwo three four\nfive\n\nsix & so"


@pytest.mark.parametrize("tag", ["script", "style", "template", "textarea", "svg"])
def test_what_nobody_sees_is_left_out(tag: str) -> None:
    assert to_text(f"<body><p>one</p><{tag}>var x</{tag}><p>two</p></body>") == "one\n\ntwo"


def test_boxes_in_boxes_are_not_indented() -> None:
    page = "<div><div><div><p>one</p><blockquote><p>two</p></blockquote><ul><li>three</li></ul></div></div></div>"
    assert to_text(page) == "one\n\ntwo\n\n* three"


def test_blank_lines_do_not_multiply() -> None:
    assert to_text("<p>one</p>" + "<p>&nbsp;</p><br>" * 5 + "<p>two</p>").count("\n\n") <= 2


def test_a_preformatted_poem_keeps_its_lines() -> None:
    assert to_text("<pre>  one\n    two</pre>") == "  one\n    two"


def test_tags_closed_in_the_way_of_xhtml_swallow_nothing() -> None:
    page = '<?xml version="1.0" encoding="utf-8"?><html><head><title/><script src="x"/></head><body><p>a <a id="x"/>b<br/>c <i/>d</p></body></html>'
    assert to_text(page) == "a b\nc d"


@pytest.mark.parametrize("page", ["", "  ", "<!-- nothing -->", "<html></html>"])
def test_a_page_of_nothing_is_an_empty_text(page: str) -> None:
    assert to_text(page) == ""


def test_a_paragraph_of_many_megabytes_is_read_whole() -> None:
    """The parser's own limit is ten; what is beyond it would be gone without a word."""
    text = "word " * 2_400_000
    assert len(to_text(f"<p>{text}</p>")) == len(text) - 1


def test_a_page_may_be_nested_deeper_than_the_parser_likes() -> None:
    assert to_text("<div>" * 400 + "deep") == "deep"


@pytest.mark.parametrize("depth", [1500, 5000])
def test_a_page_nested_too_deep_is_refused(depth: int) -> None:
    with pytest.raises(Unreadable, match="nested too deep"):
        to_text("<div>" * depth + "deep")


def test_the_encoding_that_a_page_declares_is_taken() -> None:
    page = '<meta charset="iso-8859-2"><p>Zażółć</p>'
    assert _read(page.encode("iso-8859-2")) == ("Zażółć", "")


def test_a_page_that_declares_latin_1_is_windows_1252_as_in_every_browser() -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-1"><p>„nein“</p>'
    assert _read(page.encode("cp1252")) == ("„nein“", "")


def test_a_page_that_declares_a_wrong_encoding_is_read_by_its_bytes() -> None:
    assert _read('<meta charset="iso-8859-1"><p>Müller „nein“</p>'.encode()) == ("Müller „nein“", "")


@pytest.mark.parametrize("declared", ["utf-8", "no-such-encoding", "rot13"])
def test_a_declaration_that_does_not_fit_is_passed_over(declared: str) -> None:
    page = f'<meta charset="{declared}"><p>Der Müller sagt für</p>'
    text, said = _read(page.encode("cp1252"))
    assert text == "Der Müller sagt für"
    assert said == "Windows-1252, as it is not UTF-8"


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.xhtml"])
def test_a_page_is_one_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<p>one</p><p>two</p>")
    (text,) = read(DataSpec(source=str(tmp_path / name))).texts()
    assert (text.name, text.content, text.is_row) == (name, "one\n\ntwo", False)
