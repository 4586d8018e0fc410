"""Our tokenizer against transformers' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from adapterkit.model.base import locate
from adapterkit.model.tokenizer import STRETCH, Tokenizer

TEXTS = [
    "",
    "The sea was calm.",
    "  two  spaces\n\n\tand a tab ",
    "naïve café — “quoted” 海",
    "don't we'll I'm",
    "x" * 300,
]


def test_ids_and_texts_agree_with_transformers(tiny_base: Path) -> None:
    theirs, ours = GPT2TokenizerFast.from_pretrained(tiny_base), Tokenizer(tiny_base)
    assert ours.encode_batch(TEXTS) == [theirs(t).input_ids for t in TEXTS]
    assert [ours.decode(ours.encode(t)) for t in TEXTS] == TEXTS


def test_the_end_of_text_inside_a_text_is_text(tiny_base: Path) -> None:
    tokenizer = Tokenizer(tiny_base)
    ids = tokenizer.encode("one <|endoftext|> two")
    assert tokenizer.end not in ids
    assert tokenizer.decode(ids) == "one <|endoftext|> two"


def test_offsets_are_the_characters_where_tokens_begin(tiny_base: Path) -> None:
    text = "The lamp was lit.\nRain fell."
    ids, starts = Tokenizer(tiny_base).offsets(text)
    assert len(ids) == len(starts)
    assert starts == sorted(starts)
    assert starts[0] == 0


def test_the_embedded_tokenizer_has_the_end_as_its_last_and_only_special_token() -> None:
    tokenizer = Tokenizer(locate("embedded").folder)
    assert tokenizer.end == tokenizer.size - 1 == 8191
    assert tokenizer.decode(tokenizer.encode("The sea was")) == "The sea was"


@pytest.mark.data
def test_gpt2s_own_tokenizer_agrees_with_transformers_in_both_file_forms(tmp_path: Path) -> None:
    folder = Path(os.environ["ADAPTERKIT_DATA"]) / "gpt2-tokenizer"
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    theirs = GPT2TokenizerFast.from_pretrained(folder)
    wanted = [theirs(t).input_ids for t in TEXTS]
    assert Tokenizer(folder).encode_batch(TEXTS) == wanted
    assert Tokenizer(tmp_path).encode_batch(TEXTS) == wanted
    assert Tokenizer(folder).end == 50256


@given(st.text(alphabet=st.sampled_from("ab1 \n\t'’.,é海²\u00a0\u3000\x1c"), min_size=1, max_size=60))
def test_long_texts_are_encoded_in_stretches_as_they_are_whole(tiny_base: Path, pattern: str) -> None:
    ours = Tokenizer(tiny_base)
    text = pattern * (2 * STRETCH // len(pattern) + 1)
    assert ours.encode_batch([text]) == [ours.encode(text)]


@pytest.mark.data
def test_real_texts_are_encoded_in_stretches_as_they_are_whole() -> None:
    data = Path(os.environ["ADAPTERKIT_DATA"])
    ours = Tokenizer(data / "gpt2-tokenizer")
    for name in ("wikitext2/wiki.test.raw", "grimm/grimms.txt", "tinyshakespeare/input.txt", "kjv/kjv.txt"):
        text = (data / name).read_text(encoding="utf-8")
        assert ours.encode_batch([text]) == [ours.encode(text)], name


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_tokens_begin_where_the_tokenizers_library_says(tiny_base: Path, text: str) -> None:
    ours = Tokenizer(tiny_base)
    expected = ours._fast.encode(text, add_special_tokens=False)
    assert ours.offsets(text) == (list(expected.ids), [begin for begin, _ in expected.offsets])
