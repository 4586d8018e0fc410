"""Documents as tokens: every character comes back, one start and one end, told by position."""

from __future__ import annotations

from random import Random

import pytest

from adapterkit.data.encode import encode
from adapterkit.data.text import Document
from adapterkit.model.tokenizer import END, Tokenizer
from tests.data.words import documents, pair, text


def _one(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = encode([Document("a.txt", 0, text)], tokenizer)[0].tokens.tolist()
    return ids


def test_every_character_comes_back(tokenizer: Tokenizer) -> None:
    docs = documents(Random(0), 300, 6, odd=0.5)
    assert [tokenizer.decode(e.tokens[1:-1].tolist()) for e in encode(docs, tokenizer)] == [
        d.text for d in docs
    ]


def test_characters_of_all_of_unicode_come_back(tokenizer: Tokenizer) -> None:
    """The alphabets, then every 37th character, but for the surrogates."""
    points = [chr(c) for c in [*range(0x3000), *range(0x3000, 0x110000, 37)] if not 0xD800 <= c < 0xE000]
    texts = ["".join(points[i : i + 2000]) for i in range(0, len(points), 2000)]
    found = encode([Document("a.txt", i, t) for i, t in enumerate(texts)], tokenizer)
    assert [tokenizer.decode(e.tokens[1:-1].tolist()) for e in found] == texts


@pytest.mark.parametrize(
    "content", [" leading", "trailing ", "a  b", "\n\n", "don 't , you ?", "I 'm", "x .", ""]
)
def test_spaces_are_not_tidied(tokenizer: Tokenizer, content: str) -> None:
    assert tokenizer.decode(_one(content, tokenizer)[1:-1]) == content


def test_a_document_begins_and_ends_with_the_end_token(tokenizer: Tokenizer) -> None:
    ids = _one("The sea.", tokenizer)
    assert (ids[0], ids[-1], ids.count(tokenizer.end)) == (tokenizer.end, tokenizer.end, 2)


@pytest.mark.parametrize("text", [END, f"a{END}b", f"{END}{END}", f" {END} ", END[:-1] + END])
def test_a_literal_end_of_text_holds_no_end_token(tokenizer: Tokenizer, text: str) -> None:
    ids = _one(text, tokenizer)[1:-1]
    assert (tokenizer.end in ids, tokenizer.decode(ids)) == (False, text)


def test_documents_are_encoded_one_by_one_and_together_alike(tokenizer: Tokenizer) -> None:
    docs = documents(Random(1), 20, 3, odd=0.3)
    assert [e.tokens.tolist() for e in encode(docs, tokenizer)] == [_one(d.text, tokenizer) for d in docs]


def test_offsets_begin_where_the_tokens_begin(tokenizer: Tokenizer) -> None:
    text = "The bell rang for noon, naïve 🙂 though."
    ids, starts = tokenizer.offsets(text)
    assert (ids, starts[0], starts == sorted(starts), max(starts) < len(text)) == (
        tokenizer.encode(text),
        0,
        True,
        True,
    )


def test_long_texts_have_the_tokens_they_have_in_one_stretch(tokenizer: Tokenizer) -> None:
    """Long ones are cut on their way to the tokenizer."""
    draw = Random(2)
    for between in (" ", "  ", "\n", " \n ", "'s ", "\u3000", "", " 1 ", "\t"):
        long = text(draw, 300, odd=0.3, between=between)
        assert tokenizer.encode_batch([long, "x"]) == [tokenizer.encode(long), tokenizer.encode("x")]


# --- what is read but not learned ---


def test_a_document_without_context_has_no_spans(tokenizer: Tokenizer) -> None:
    assert encode([Document("a.txt", 0, "The sea.")], tokenizer)[0].context == ()


def test_a_prompt_is_encoded_as_it_is_alone(tokenizer: Tokenizer) -> None:
    """And so is what follows it, as when someone writes on from a prompt."""
    found = encode([pair("Why did the ba", "ker?")], tokenizer)[0]
    prompt, completion = tokenizer.encode("Why did the ba"), tokenizer.encode("ker?")
    assert found.tokens.tolist() == [tokenizer.end, *prompt, *completion, tokenizer.end]
    assert found.context == ((1, 1 + len(prompt)),)


def test_spans_hold_just_the_stretches_that_are_not_learned(tokenizer: Tokenizer) -> None:
    segments = [("User: Hi 🙂\n", False), ("Hello.\n", True), ("User: Bye\n", False), ("Bye.", True)]
    found = encode([Document("a.txt", 0, "").rebuilt(segments)], tokenizer)[0]
    assert [tokenizer.decode(found.tokens[a:b].tolist()) for a, b in found.context] == [
        "User: Hi 🙂\n",
        "User: Bye\n",
    ]


def test_pairs_and_plain_documents_keep_their_order(tokenizer: Tokenizer) -> None:
    docs = [pair("Why?\n", "Because."), Document("a.txt", 1, "The sea."), pair("Who?\n", "Tam.")]
    found = encode(docs, tokenizer)
    assert [tokenizer.decode(e.tokens[1:-1].tolist()) for e in found] == [d.text for d in docs]
    assert [len(e.context) for e in found] == [1, 0, 1]


def test_the_end_after_a_context_that_ends_the_text_is_no_part_of_it(tokenizer: Tokenizer) -> None:
    found = encode([Document("a.txt", 0, "Why?").rebuilt([("Because. ", True), ("Why?", False)])], tokenizer)[
        0
    ]
    assert found.context[-1][1] == len(found.tokens) - 1


def test_a_text_rebuilt_from_its_segments_is_the_same() -> None:
    document = Document("a.txt", 3, "one two three four", ((4, 7), (14, 18)))
    assert document.rebuilt(document.segments()) == document


def test_stretches_that_touch_become_one_span() -> None:
    found = Document("a.txt", 0, "").rebuilt([("a", False), ("", True), ("b", False), ("c", True)])
    assert (found.text, found.context) == ("abc", ((0, 2),))
