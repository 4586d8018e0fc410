"""Nothing private leaves: no place of this computer, no page of the training text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterkit.errors import Unsupported
from adapterkit.sharing import leaks

PAGE = " ".join(f"word{i}" for i in range(40))


@pytest.mark.parametrize(
    "place",
    [
        "/home/ann/novel/ch1.txt",
        "/Users/ann/novel",
        "/odd/root/of/its/own",
        "C:\\Users\\ann\\novel.docx",
        "d:/texts/novel.txt",
        "\\\\server\\share\\novel",
        "~/novel/ch1.txt",
        "~ann/novel",
        "file:///srv/novel",
    ],
)
def test_a_place_in_a_manifest_is_found(place: str) -> None:
    with pytest.raises(
        Unsupported, match=r"noir@1 does not leave this computer: its manifest\.json names a place"
    ) as told:
        _check({}, {"data": {"source": ["a.txt", place]}})
    assert told.value.code == "private"


def test_a_place_amid_the_words_of_a_card_is_found() -> None:
    with pytest.raises(Unsupported, match=r"its README\.md names a place here, '/home/ann/novel/ch1\.txt'"):
        _check({"README.md": b"- Text: `x` from /home/ann/novel/ch1.txt, 3 documents"})


def test_a_place_as_a_key_is_found() -> None:
    with pytest.raises(Unsupported, match=r"its recipe\.json"):
        _check({"recipe.json": json.dumps({"origins": {"/tmp/x/recipe.yaml": 1}}).encode()})


def test_the_home_folder_is_found_wherever_it_is() -> None:
    with pytest.raises(Unsupported, match="names a place"):
        _check({"README.md": f"see {Path.home()}".encode()})


@pytest.mark.parametrize(
    "text",
    [
        "The sea was wide / Heave away, and/or not, 3/4 of it at 10/12/1871, ~5/10, n/a",
        "https://huggingface.co/openai-community/gpt2 and http://127.0.0.1:80/home/x",
        "a <br/> b </p> and `data/stories/one.txt`, ../stories, ./home/x",
        "Chapter C: the house. Ratio a:b, 12:30, km/h, /r/jokes said so",
        "openai-community/gpt2",
        "hub:acme/noir",
    ],
)
def test_ordinary_words_are_no_places(text: str) -> None:
    _check({"README.md": text.encode(), "recipe.json": json.dumps({"prompts": [text]}).encode()})


def test_a_page_of_the_training_text_is_found(tmp_path: Path) -> None:
    _excerpt(tmp_path, f"It began: {PAGE} and so on.")
    with pytest.raises(Unsupported, match=r"its README\.md quotes its training text, 'word"):
        _check({"README.md": f"> {PAGE.replace(' ', '  ').upper()}".encode()}, folder=tmp_path)


def test_a_phrase_is_no_quotation(tmp_path: Path) -> None:
    _excerpt(tmp_path, PAGE)
    _check({"README.md": " ".join(PAGE.split()[:30]).encode()}, folder=tmp_path)


def test_a_tokenizers_words_are_not_looked_at() -> None:
    _check({"tokenizer.json": b'{"vocab": {"/home/ann/novel": 1}}'})


def _excerpt(folder: Path, text: str) -> None:
    (folder / "private").mkdir()
    (folder / "private" / "data.json").write_text(json.dumps({"samples": [{"text": text}]}))


def _check(
    texts: dict[str, bytes], manifest: dict[str, Any] | None = None, folder: Path | None = None
) -> None:
    leaks.check(texts, manifest or {}, folder, "noir@1")
