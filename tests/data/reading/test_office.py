"""Word, OpenDocument and EPUB: what a reader of the page sees, once; python-docx is the other opinion."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterkit.data.reading import archives
from adapterkit.data.reading.kinds import Unreadable
from adapterkit.data.reading.office import check_office, read_office
from adapterkit.data.sources import read
from adapterkit.errors import DataError
from adapterkit.recipe.schema import DataSpec

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
)


def _zip(files: dict[str, str | bytes]) -> io.BytesIO:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    held.seek(0)
    return held


def _word(body: str, *, before: str = "", space: str = W) -> io.BytesIO:
    """A Word file of nothing but a body."""
    return _zip(
        {
            "word/document.xml": f'{before}<w:document xmlns:w="{space}" xmlns:mc="{MC}"><w:body>{body}</w:body></w:document>'
        }
    )


def _docx(body: str, **keys: str) -> str:
    return read_office(_word(body, **keys), "docx")


def _p(*runs: str) -> str:
    return f"<w:p>{''.join(runs)}</w:p>"


def _r(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


# --- Word ---


def test_what_python_docx_writes_is_read_like_python_docx_reads_it(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("The sea", 1)
    paragraph = document.add_paragraph("It was ")
    paragraph.add_run("calm").bold = True
    paragraph.add_run(" – für 3 €.\tAnd wide.")
    document.add_paragraph("Second\nline", style="List Bullet")
    document.sections[0].header.paragraphs[0].text = "A header"
    document.sections[0].footer.paragraphs[0].text = "A footer"
    document.save(tmp_path / "a.docx")
    (text,) = read(DataSpec(source=str(tmp_path / "a.docx"))).texts()
    assert text.content == "\n\n".join(p.text for p in document.paragraphs)
    assert text.content == "The sea\n\nIt was calm – für 3 €.\tAnd wide.\n\nSecond\nline"
    assert (text.name, text.is_row) == ("a.docx", False)


def test_tables_of_python_docx_are_lines_of_cells(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("before")
    table = document.add_table(2, 2)
    for i, cell in enumerate(c for row in table.rows for c in row.cells):
        cell.text = f"cell {i}"
    table.cell(0, 0).add_paragraph("more")
    document.add_paragraph("after")
    document.save(tmp_path / "a.docx")
    (text,) = read(DataSpec(source=str(tmp_path / "a.docx"))).texts()
    assert text.content == "before\n\ncell 0 more\tcell 1\ncell 2\tcell 3\n\nafter"


def test_empty_paragraphs_leave_no_trace() -> None:
    assert _docx(_p(_r("one")) + _p() + _p(_r(" ")) + _p() + _p(_r("two"))) == "one\n\ntwo"


def test_lines_of_a_poem_keep_their_breaks() -> None:
    assert _docx(_p(_r("one"), "<w:r><w:br/></w:r>", _r("two"), "<w:r><w:cr/></w:r>", _r("three"))) == (
        "one\ntwo\nthree"
    )


def test_tabs_are_kept_but_stops_of_the_ruler_are_none() -> None:
    stops = '<w:pPr><w:tabs><w:tab w:val="left" w:pos="720"/></w:tabs></w:pPr>'
    assert _docx(_p(stops, _r("a"), "<w:r><w:tab/></w:r>", _r("b"))) == "a\tb"


@pytest.mark.parametrize("mark", ["del", "moveFrom"])
def test_tracked_deletions_are_left_out(mark: str) -> None:
    gone = f'<w:{mark} w:id="1"><w:r><w:delText>gone </w:delText><w:t>gone</w:t></w:r></w:{mark}>'
    assert _docx(_p(_r("one "), gone, _r("two"))) == "one two"


@pytest.mark.parametrize("mark", ["ins", "moveTo"])
def test_tracked_insertions_are_kept(mark: str) -> None:
    assert _docx(_p(_r("one "), f'<w:{mark} w:id="1">{_r("new ")}</w:{mark}>', _r("two"))) == "one new two"


def test_a_paragraph_whose_end_was_struck_out_goes_on_in_the_next() -> None:
    struck = '<w:pPr><w:rPr><w:del w:id="1"/></w:rPr></w:pPr>'
    assert _docx(_p(struck, _r("one ")) + _p(_r("two"))) == "one two"
    assert _docx(_p(_r("one")) + _p(struck, _r("two"))) == "one\n\ntwo"


def test_instructions_of_fields_are_left_out_and_their_results_kept() -> None:
    steps = {s: f'<w:r><w:fldChar w:fldCharType="{s}"/></w:r>' for s in ("begin", "separate", "end")}
    inner = f"{steps['begin']}{_r('inner')}{steps['separate']}{_r('hidden')}{steps['end']}"
    field = (
        f"{steps['begin']}<w:r><w:instrText>PAGEREF x</w:instrText></w:r>{inner}{steps['separate']}"
        f"{_r('12')}{steps['end']}"
    )
    assert _docx(_p(_r("page "), field, _r("."))) == "page 12."


def test_a_field_that_never_ends_hides_no_more_than_its_paragraph() -> None:
    assert _docx(_p('<w:r><w:fldChar w:fldCharType="begin"/></w:r>', _r("x")) + _p(_r("two"))) == "two"


def test_a_text_box_is_read_once() -> None:
    box = f"<w:txbxContent>{_p(_r('boxed'))}</w:txbxContent>"
    both = (
        "<w:r><mc:AlternateContent>"
        f'<mc:Choice Requires="wps">{box}</mc:Choice><mc:Fallback><w:pict>{box}</w:pict></mc:Fallback>'
        "</mc:AlternateContent></w:r>"
    )
    text = _docx(_p(_r("one "), both, _r("two")))
    assert sorted(text.split("\n\n")) == ["boxed", "one two"]


def test_a_table_in_a_table_keeps_its_words() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{_p(_r('a'))}</w:tc><w:tc>{_p(_r('b'))}</w:tc></w:tr></w:tbl>"
    outer = f"<w:tbl><w:tr><w:tc>{inner}{_p()}</w:tc><w:tc>{_p(_r('c'))}</w:tc></w:tr></w:tbl>"
    assert _docx(outer) == "a\tb\tc"


def test_a_letter_set_in_a_frame_of_one_cell_keeps_its_paragraphs() -> None:
    assert _docx(f"<w:tbl><w:tr><w:tc>{_p(_r('one'))}{_p(_r('two'))}</w:tc></w:tr></w:tbl>") == "one\n\ntwo"


def test_strict_office_xml_is_read_too() -> None:
    assert _docx(_p(_r("one")), space="http://purl.oclc.org/ooxml/wordprocessingml/main") == "one"


def test_the_document_may_have_another_name() -> None:
    body = f'<w:document xmlns:w="{W}"><w:body>{_p(_r("one"))}</w:body></w:document>'
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    relations = f'<Relationships xmlns="x"><Relationship Id="r" Type="{kind}" Target="/word/document2.xml"/></Relationships>'
    assert read_office(_zip({"_rels/.rels": relations, "word/document2.xml": body}), "docx") == "one"


def test_comments_and_notes_are_never_opened() -> None:
    files = dict.fromkeys((f"word/{part}.xml" for part in ("comments", "footnotes", "endnotes")), "<not xml")
    words = _p(_r("one"), '<w:commentReference w:id="0"/>')
    body = f'<w:document xmlns:w="{W}"><w:body>{words}</w:body></w:document>'
    assert read_office(_zip({**files, "word/document.xml": body}), "docx") == "one"


# --- what is refused ---


def test_an_entity_bomb_is_refused() -> None:
    with pytest.raises(Unreadable, match="its XML defines entities, which can be an attack"):
        _docx(_p(_r("&c;")), before=BOMB)


def test_a_document_made_to_fill_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1 << 16)
    with pytest.raises(Unreadable, match="it unpacks to over 200 times its size"):
        _docx(_p(_r("a" * (1 << 22))))


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (lambda: io.BytesIO(b""), "empty"),
        (lambda: io.BytesIO(b"plain words"), "damaged, no docx file"),
        (lambda: io.BytesIO(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600), "with a password"),
        (lambda: io.BytesIO(_word(_p(_r("x" * 999))).getvalue()[:-30]), "a damaged zip"),
        (lambda: _zip({"content.xml": "<x/>"}), "no docx document in it|there is no document in it"),
        (lambda: _word("<w:p><w:r>"), "damaged, its XML breaks off"),
        (lambda: _zip({"word/document.xml": ""}), "damaged, its XML breaks off"),
    ],
    ids=["empty", "text", "password", "cut", "other", "xml", "blank"],
)
def test_a_damaged_document_is_refused_with_a_reason(stream: Callable[[], io.BytesIO], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_office(stream(), "docx")


@pytest.mark.parametrize("kind", ["docx", "odt", "epub"])
def test_a_zip_of_something_else_is_found_without_reading_it(kind: str) -> None:
    with pytest.raises(Unreadable, match=f"no {kind} document in it"):
        check_office(_zip({"a.txt": "one"}), kind)


def test_a_damaged_document_in_a_folder_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(_word(_p(_r("one"))).getvalue())
    (tmp_path / "b.docx").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"1 of 2 files can't be read: b\.docx \(a damaged zip"):
        read(DataSpec(source=str(tmp_path)))


def test_a_document_in_a_zip_in_a_folder_is_read(tmp_path: Path) -> None:
    held = _zip({"letters/a.docx": _word(_p(_r("one"))).getvalue()})
    (tmp_path / "all.zip").write_bytes(held.getvalue())
    (text,) = read(DataSpec(source=str(tmp_path))).texts()
    assert (text.name, text.content) == ("all.zip/letters/a.docx", "one")


# --- OpenDocument ---

ODT = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
    'xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "<office:body><office:text>{}</office:text></office:body></office:document-content>"
)


def _odt(body: str, **files: str) -> str:
    return read_office(_zip({"content.xml": ODT.format(body), **files}), "odt")


def test_paragraphs_and_headings_of_opendocument_are_parted() -> None:
    body = "<text:h>One</text:h>\n <text:p>two <text:span>three</text:span></text:p><text:p/><text:p>four</text:p>"
    assert _odt(body) == "One\n\ntwo three\n\nfour"


def test_blanks_of_opendocument_are_those_that_are_meant() -> None:
    assert (
        _odt('<text:p>  a\n   b<text:s text:c="3"/>c<text:tab/>d<text:line-break/>e </text:p>')
        == "a b   c\td\ne"
    )


@pytest.mark.parametrize(
    "gone",
    [
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>x</text:p></text:note-body></text:note>",
        "<office:annotation><dc:creator>me</dc:creator><text:p>x</text:p></office:annotation>",
        "<draw:frame><svg:title>x</svg:title><svg:desc>x</svg:desc></draw:frame>",
    ],
)
def test_notes_and_comments_of_opendocument_are_left_out(gone: str) -> None:
    assert _odt(f"<text:p>one {gone}two</text:p>") == "one two"


def test_tracked_deletions_of_opendocument_are_left_out() -> None:
    deleted = "<text:tracked-changes><text:changed-region><text:deletion><text:p>x</text:p></text:deletion></text:changed-region></text:tracked-changes>"
    assert _odt(f'{deleted}<text:p>one <text:change text:change-id="1"/>two</text:p>') == "one two"


def test_tables_of_opendocument_are_lines_of_cells() -> None:
    row = "<table:table-row>" + "".join(
        f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in "ab"
    )
    assert _odt(f"<table:table>{row}</table:table-row>{row}</table:table-row></table:table>") == "a\tb\na\tb"


def test_an_opendocument_with_a_password_is_refused() -> None:
    with pytest.raises(Unreadable, match="it has a password"):
        _odt("", **{"META-INF/manifest.xml": "<manifest:encryption-data/>"})


def test_an_entity_bomb_in_an_opendocument_is_refused() -> None:
    with pytest.raises(Unreadable, match="defines entities"):
        read_office(_zip({"content.xml": BOMB + ODT.format("<text:p>&c;</text:p>")}), "odt")


# --- EPUB ---


def _epub(chapters: dict[str, str], spine: list[str], **more: Any) -> io.BytesIO:
    items = "".join(
        f'<item id="i{i}" href="{n}" media-type="application/xhtml+xml"/>' for i, n in enumerate(chapters)
    )
    refs = "".join(f'<itemref idref="i{list(chapters).index(n)}"/>' for n in spine)
    nav = '<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    opf = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}{nav}</manifest><spine><itemref idref="n"/>{refs}</spine></package>'
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    pages = {f"OEBPS/{n}": f"<html><head><title/></head><body>{c}</body></html>" for n, c in chapters.items()}
    files = {"META-INF/container.xml": container, "OEBPS/book.opf": opf, "OEBPS/nav.xhtml": "<p>Contents</p>"}
    return _zip({**files, **pages, **more})


def test_chapters_of_a_book_come_in_the_order_they_are_read() -> None:
    chapters = {"a.xhtml": "<h1>Two</h1><p>the second</p>", "z.xhtml": "<h1>One</h1><p>the first</p>"}
    text = read_office(_epub(chapters, ["z.xhtml", "a.xhtml"]), "epub")
    assert text == "One\n\nthe first\n\nTwo\n\nthe second"


def test_chapters_with_blanks_in_their_names_are_found() -> None:
    book = _epub({"a%20b.xhtml": "x"}, ["a%20b.xhtml"], **{"OEBPS/a b.xhtml": "<p>one</p>"})
    assert read_office(book, "epub") == "one"


def test_a_book_protected_against_copying_is_refused() -> None:
    lock = '<encryption><EncryptedData><CipherReference URI="OEBPS/a.xhtml"/></EncryptedData></encryption>'
    book = _epub({"a.xhtml": "x"}, ["a.xhtml"], **{"META-INF/encryption.xml": lock})
    with pytest.raises(Unreadable, match="it is protected against copying"):
        read_office(book, "epub")


def test_scrambled_fonts_of_a_book_are_no_hindrance() -> None:
    lock = '<encryption><EncryptedData><CipherReference URI="OEBPS/a.otf"/></EncryptedData></encryption>'
    book = _epub({"a.xhtml": "<p>one</p>"}, ["a.xhtml"], **{"META-INF/encryption.xml": lock})
    assert read_office(book, "epub") == "one"


def test_a_book_without_its_chapters_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"damaged, it does not say what is in it"):
        read_office(_zip({"META-INF/container.xml": "<container/>"}), "epub")
