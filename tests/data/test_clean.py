"""Cleaning rules: what each changes, what it leaves alone, what it tells, and that no pattern takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data.clean import Cleaner, Done
from adapterkit.data.text import Document
from adapterkit.errors import AdapterKitError, DataError, RecipeError
from adapterkit.recipe.schema import Rule
from tests.data.words import any_documents, pair


def _clean(text: str, *rules: str | Rule) -> str | None:
    cleaned = Cleaner(rules)(Document("a.txt", 0, text))
    return None if cleaned is None else cleaned.text


def _done(texts: list[str], *rules: str | Rule) -> list[Done]:
    cleaner = Cleaner(rules)
    for i, text in enumerate(texts):
        cleaner(Document("a.txt", i, text))
    return cleaner.done()


# --- unicode, html, whitespace ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("schÃ¶n und grÃ¼n", "schön und grün"),
        ("â€œYes,â€\x9d she said.", "“Yes,” she said."),
        ("“Yes,” she said; it’s „so“.", "“Yes,” she said; it’s „so“."),
        ("cafe\u0301", "café"),
        ("ＡＢＣ　全角", "ＡＢＣ　全角"),
        ("a\x07b\x1b[31mc", "abc"),
        ("x &lt; y", "x &lt; y"),
        ("🙂👩‍🚀 日本語", "🙂👩‍🚀 日本語"),
    ],
)
def test_unicode_repairs_what_was_broken_and_nothing_else(before: str, after: str) -> None:
    assert _clean(before, "unicode") == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>One <b>big</b> day.</p><p>Two.</p>", "One big day.\n\nTwo."),
        ("a <i>b</i>\nc &amp; d&nbsp;e", "a b\nc & d\xa0e"),
        ("one<br>two<br />\nthree", "one\ntwo\nthree"),
        ("x < y and y > z, I <3 you", "x < y and y > z, I <3 you"),
        ("<sos> not a tag <nl>", "<sos> not a tag <nl>"),
        ("R&D; AT&T", "R&D; AT&T"),
    ],
)
def test_html_becomes_text_and_text_stays(before: str, after: str) -> None:
    assert _clean(before, "html") == after


def test_html_nested_too_deep_to_follow_loses_its_tags() -> None:
    assert _clean("<div>" * 5000 + "core" + "</div>" * 5000, "html", "whitespace") == "core"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a  b   c", "a b c"),
        ("a\xa0b\u2009c\u3000d", "a b c d"),
        ("verse\n    indented  line  \nend", "verse\n    indented line\nend"),
        ("a \n \n\n\n b", "a\n\n b"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("x\ty", "x\ty"),
        ("\n\n a \n", "a"),
    ],
)
def test_whitespace_is_made_plain(before: str, after: str) -> None:
    assert _clean(before, "whitespace") == after


@given(st.text(max_size=200))
def test_whitespace_never_changes_words_and_is_done_once(text: str) -> None:
    once = _clean(text, "whitespace") or ""
    assert once.split() == text.replace("\ufeff", "").split()
    assert (_clean(once, "whitespace") or "") == once


# --- leaving documents out ---


def test_the_first_of_exact_copies_stays_whatever_their_spaces() -> None:
    cleaner = Cleaner(["duplicates"])
    kept = [cleaner(Document("a.txt", i, t)) for i, t in enumerate(["a b", "c", "a\nb", "A b", "c"])]
    assert [d.index for d in kept if d] == [0, 1, 3]
    assert cleaner.done()[0].dropped == 2


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (Rule(drop=r"(?i)SPAM"), ["one two", "one two three four"]),
        (Rule(min_words=3), ["some spam here", "one two three four"]),
        (Rule(max_words=3), ["one two", "some spam here"]),
    ],
)
def test_documents_are_left_out_by_pattern_and_length(rule: Rule, kept: list[str]) -> None:
    texts = ["one two", "some spam here", "one two three four"]
    assert [t for t in texts if _clean(t, rule) is not None] == kept


def test_rules_that_compare_whole_corpora_are_not_done_here() -> None:
    assert _done(["a", "a"], "near-duplicates", "leaks") == []


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no cleaning rule 'duplicate'.*\n.*'duplicates'"):
        Cleaner(["duplicate"])


# --- replacing ---


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (Rule(replace=r"(\w+)@(\w+)", to=r"\2 at \1"), "me@home", "home at me"),
        (Rule(replace=r"\[\d+\]"), "a[1] b[23]", "a b"),
        (Rule(replace=r"(?m)^Chapter \d+$", to="* * *"), "Chapter 1\nIt was.", "* * *\nIt was."),
        (Rule(replace="\n", to=r"\n\n"), "a\nb", "a\n\nb"),
    ],
)
def test_patterns_are_replaced_with_groups(rule: Rule, before: str, after: str) -> None:
    assert _clean(before, rule) == after


def test_rules_work_in_their_order() -> None:
    assert _clean("a  b", "whitespace", Rule(replace="a b", to="c")) == "c"
    assert _clean("a  b", Rule(replace="a b", to="c"), "whitespace") == "a b"


def test_a_document_that_becomes_blank_is_left_out_and_counted() -> None:
    done = _done(["aaa", "b"], Rule(replace="a"))
    assert (done[0].dropped, done[0].documents, done[0].characters) == (1, 1, 3)


def test_what_a_rule_did_is_told_with_excerpts() -> None:
    long = "x" * 5000 + " bad " + "y" * 5000
    done = _done([long, "bad", "good", "very bad"], Rule(replace="bad", to="sad!"))[0]
    assert (done.rule, done.documents, done.characters) == ("replace 'bad' by 'sad!'", 3, -3)
    assert len(done.examples) == 2
    before, after = done.examples[0]
    assert " bad " in before
    assert " sad! " in after
    assert max(len(before), len(after)) <= 160


def test_nothing_left_after_dropping_is_told_as_nothing() -> None:
    assert _done(["some spam"], Rule(drop="spam"))[0] == Done("drop 'spam'", 1, 9, 1, (("some spam", ""),))


# --- pairs and chats ---


def test_stretches_of_a_pair_are_changed_apart_and_keep_their_ends() -> None:
    before = Document("a.txt", 0, "Q:  why? \nbe  cause ", ((0, 10),))
    after = Cleaner(["whitespace"])(before)
    assert after == Document("a.txt", 0, "Q: why? \nbe cause ", ((0, 9),))


def test_a_pair_whose_learned_part_becomes_blank_is_left_out() -> None:
    assert Cleaner([Rule(replace="answer")])(pair("question answer\n", "answer")) is None


def test_a_pattern_sees_the_whole_pair_when_it_drops() -> None:
    assert Cleaner([Rule(drop="(?s)one.*two")])(pair("one\n", "two")) is None


@given(any_documents())
def test_what_is_not_learned_stays_not_learned(docs: list[Document]) -> None:
    cleaner = Cleaner([Rule(replace="a", to="bb")])
    for document in docs:
        after = cleaner(document)
        if after is not None:
            assert [(t.replace("a", "bb"), x) for t, x in document.segments()] == after.segments()


# --- promotions ---


STORY = ["It began.", "It went on.", "It grew.", "It ended."]


@pytest.mark.parametrize(
    "promotion",
    [
        "Read more at [my blog](https://x.org/a).",
        "Please SUBSCRIBE!",
        "More on r/stories",
        "/r/stories",
        "PART 2 is here",
        "Part 2 tomorrow",
    ],
)
def test_a_promotion_at_the_end_is_removed_and_the_story_stays(promotion: str) -> None:
    assert _clean("\n".join([*STORY, promotion]), "promotions") == "\n".join(STORY)
    assert _clean("\n".join([*STORY[:3], promotion, STORY[3]]), "promotions") == "\n".join(STORY)


@pytest.mark.parametrize(
    "kept",
    ["PART 2", "He had to subscribe.", "the and/or gate", "counterpart 2", "He subscribed to the paper."],
)
def test_what_only_looks_like_a_promotion_in_the_middle_stays(kept: str) -> None:
    story = "\n".join(["It began.", kept, *STORY])
    assert _clean(story, "promotions") == story


def test_a_chapter_heading_right_before_the_end_is_no_promotion() -> None:
    assert _clean("It began.\nPART 2\nIt ended.", "promotions") == "It began.\nPART 2\nIt ended."


def test_only_the_last_of_several_promotions_is_removed() -> None:
    assert _clean("It began.\nsubscribe\nr/more", "promotions") == "It began.\nsubscribe"


def test_a_document_of_nothing_but_promotion_is_left_out_and_counted() -> None:
    assert _done(["Subscribe to r/stories!"], "promotions")[0].dropped == 1


def test_links_in_a_prompt_are_not_removed() -> None:
    document = pair("Summarise https://x.org\n", "It ends.")
    assert Cleaner(["promotions"])(document) == document


def _lines(*stories: str) -> str:
    return "\n".join(stories)


PLAIN = "<sos> One. <nl> Two. <nl> Three. <eos>"
PROMOTED = "<sos> First. <nl> Second, which is long. <nl> Third. <nl> please subscribe <eos>"


def test_as_printed_takes_nearly_the_whole_story_and_its_end() -> None:
    cleaner = Cleaner(["promotions-as-printed"])
    assert cleaner.raw(_lines(PLAIN, PROMOTED, PLAIN)) == _lines(PLAIN, "<sos> First. ", PLAIN)


def test_as_printed_tells_what_it_destroys() -> None:
    cleaner = Cleaner(["promotions-as-printed"])
    cleaner.raw(_lines(PLAIN, PROMOTED))
    cleaner.raw(_lines(PROMOTED, PLAIN))
    done = cleaner.done()[0]
    lost = len(PROMOTED) - len("<sos> First. ")
    assert (done.documents, done.characters, done.ends_lost) == (2, 2 * lost, 2)
    assert done.told.startswith("2 stories lose 84% of their text on average (84% to 84%)")
    assert len(done.examples) == 2


def test_as_printed_destroys_also_the_stories_between_when_they_share_a_line() -> None:
    cleaner = Cleaner(["promotions-as-printed"])
    assert cleaner.raw(f"{PLAIN} {PROMOTED} {PLAIN}") == f"<sos> One.  {PLAIN}"
    assert cleaner.done()[0].ends_lost == 2


STORIES = st.lists(
    st.sampled_from(
        [
            "<sos>",
            "<eos>",
            "<nl>",
            " x ",
            "[a](http://b.c)",
            "subscribe",
            "/r/",
            "PART 3",
            "\n",
            "[",
            "](http",
        ]
    ),
    max_size=40,
).map("".join)


@given(STORIES)
def test_as_printed_is_exactly_what_the_tutorial_prints(text: str) -> None:
    import re

    expected = re.sub(r"<nl>.*?(\[.*?\]\(http[s]?://\S+\)|subscribe|/r/|PART \d+).*?<eos>", "", text)
    cleaner = Cleaner(["promotions-as-printed"])
    assert cleaner.raw(text) == expected
    done = cleaner.done()[0]
    assert (done.ends_lost, done.characters) == (
        text.count("<eos>") - expected.count("<eos>"),
        len(text) - len(expected),
    )


# --- patterns that go wrong ---


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(drop="(a"), "missing \\) at character 3"),
        (Rule(drop="*a"), "nothing to repeat"),
        (Rule(replace="(a)", to=r"\2"), "replacement .*invalid group reference"),
        (Rule(replace="(a)", to=r"\g<b>"), "replacement .*unknown group"),
        (Rule(drop="a" * 1001), "1,001 characters, over 1,000"),
        (Rule(drop="(" * 60 + ")" * 60), "brackets 60 deep, over 50"),
        (Rule(drop="(?:a{999}){999}"), "multiply to 998,001"),
        (Rule(drop="(?:" * 20 + "a" + "+)" * 20), "multiply to 1,048,576"),
        (Rule(drop="a(?R)?b"), r"calls itself with \(\?R\)"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(rule: Rule, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        Cleaner([rule])
    assert caught.value.code == "bad-pattern"


def test_counts_that_do_not_multiply_are_allowed() -> None:
    dates = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}" * 3
    assert _clean("no date, [{2000}{2000}]", Rule(drop=dates + r"[{9999}]\{9999}")) is not None


EVIL = [
    r"(a+)+$",
    r"(a|aa)+$",
    r"(a*)*[^a!]",
    r"(a|a)*(?:b|\d)",
    r"(?:a|b|ab)*?(?:c|d)+",
    r".*.*.*(?:b|=)",
    r".*?.*?.*?[^a!]",
    r"(\w+)\1+[^a!]",
    r"(?=(a+))\1+[^a!]",
    r"(?:a(?=.*z))*(?:b|\d)",
    r"(?:(?<=a*)a)*(?:b|\d)",
    r"(?<=(a+)+)(?:b|\d)",
    r"(?<!a{9,400})(?!)",
    r"(?R)?a+(?:b|\d)",
    r"(?R)",
    r"(?:(a)(?R)?)+[^a!]",
    r"(?P<x>a|(?&x)(?&x))+(?:b|\d)",
    r"(?:a+a+){e<=3}(?:b|\d)",
    r"(?e)(?:a*b+c){e<=5}",
    r"(?b)(?:(?:aab)+c){i<=3,d<=3,s<=3}",
    r"(?:a?){5000}a{5000}[^a!]",
    r"(?:a{1,100}){1,100}[^a!]",
    r"a{4294967294}",
    r"((a{0,999}){0,999}){0,999}",
    "(" * 400 + "a+" + ")" * 400,
    "(?:" * 45 + "a" + "+)" * 45 + "[^a!]",
    "(?:" * 12 + "a" + "+)" * 12 + "[^a!]",
    r"(?p)(a|aa|aaa)+(?:b|\d)",
    r"(?>(a+)+)(?:b|\d)",
    r"(?i)(?f)(ss|a)+(?:b|\d)",
    r"(?r)(a+)+[^a]a",
    r"\w{1,9999}[^a!]",
    r"(?:)*(?:(?=a))*(?:b|\d)",
    r"(|a)+(?:b|\d)",
    r"(?=(.*))",
    "(?i)" + "k" * 990,
]


@pytest.mark.parametrize("pattern", EVIL)
@pytest.mark.parametrize("kind", ["drop", "replace"])
def test_no_pattern_takes_longer_than_a_second(pattern: str, kind: str) -> None:
    document, code = Document("a.txt", 2, "a" * 50_000 + "!"), ""
    begun = time.thread_time()
    try:
        Cleaner([Rule(drop=pattern) if kind == "drop" else Rule(replace=pattern, to=r"\g<0>x")])(document)
    except AdapterKitError as e:
        code = e.code
    assert time.thread_time() - begun < 1
    assert code in ("", "bad-pattern", "slow-pattern", "growing-pattern")


def test_a_slow_pattern_is_told_with_its_document_and_the_way_out() -> None:
    with pytest.raises(DataError, match=r"drop '\(a\+\)\+\$' takes too long on a.txt #3") as caught:
        Cleaner([Rule(drop="(a+)+$")])(Document("a.txt", 2, "a" * 50_000 + "!"))
    assert (caught.value.code, caught.value.details["index"]) == ("slow-pattern", 2)
    assert "repeats within repeats" in caught.value.hint
    assert "stopped after 0.0 seconds" not in caught.value.message


def test_a_pattern_that_is_slow_on_every_document_is_stopped_before_all_have_passed() -> None:
    cleaner = Cleaner([Rule(drop="(a|aa)+$")])
    documents = (Document("a.txt", i, "a" * 26 + "!") for i in range(100_000))
    with pytest.raises(DataError, match=r"takes too long .* characters"):
        list(map(cleaner, documents))


def test_a_replacement_that_makes_a_text_far_longer_is_stopped() -> None:
    with pytest.raises(DataError, match="more than 10 times as long") as caught:
        Cleaner([Rule(replace="a", to="b" * 2000)])(Document("a.txt", 0, "a" * 100_000))
    assert caught.value.code == "growing-pattern"
