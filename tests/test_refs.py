"""Every form of the ADAPTER text."""

from __future__ import annotations

import shlex

import pytest

from adapterkit.errors import NotFound, UsageProblem
from adapterkit.refs import (
    Part,
    Ref,
    check_name,
    from_mapping,
    is_name,
    looks_like_digest,
    parse_adapter,
    parse_ref,
    suggest_name,
)

NOIR, SHANTY = Ref("noir"), Ref("shanty")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noir", Ref("noir")),
        ("noir@3", Ref("noir", "3")),
        ("noir@best", Ref("noir", "best")),
        ("noir@latest", Ref("noir", "latest")),
        ("noir@9f2c1a7b", Ref("noir", "9f2c1a7b")),
        ("  noir@prod-2 ", Ref("noir", "prod-2")),
        ("3-men_in-a-boat", Ref("3-men_in-a-boat")),
    ],
)
def test_a_ref_is_a_name_and_maybe_a_version(text: str, expected: Ref) -> None:
    assert parse_ref(text) == expected


@pytest.mark.parametrize("text", ["noir", "noir@3", "noir@9f2c1a7b"])
def test_a_ref_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_ref(text)) == text


@pytest.mark.parametrize(
    "text", ["", "Noir", "noir@", "@3", "noir@3@4", "./noir", "noir/3", "noir@Best", "-x"]
)
def test_a_path_or_a_slip_is_no_ref(text: str) -> None:
    with pytest.raises(NotFound, match="is not a version of an adapter"):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base", ()),
        (" base ", ()),
        ("noir", (Part(NOIR),)),
        ("noir@3", (Part(Ref("noir", "3")),)),
        ("noir=0.6", (Part(NOIR, 0.6),)),
        ("noir=-0.5", (Part(NOIR, -0.5),)),
        ("noir@best=1e-1", (Part(Ref("noir", "best"), 0.1),)),
        ("noir=0.7,shanty=0.3", (Part(NOIR, 0.7), Part(SHANTY, 0.3))),
        ("noir=0.7, shanty@2=0.3", (Part(NOIR, 0.7), Part(Ref("shanty", "2"), 0.3))),
    ],
)
def test_an_adapter_is_the_base_a_part_or_a_blend(text: str, expected: tuple[Part, ...]) -> None:
    assert parse_adapter(text) == expected


def test_a_part_without_a_weight_has_full_strength() -> None:
    assert parse_adapter("noir")[0].strength == 1.0


def test_weights_are_not_normalised() -> None:
    assert [p.strength for p in parse_adapter("noir=2,shanty=3")] == [2.0, 3.0]


@pytest.mark.parametrize("text", ["noir,shanty", "noir,shanty=0.5"])
def test_several_parts_need_weights(text: str) -> None:
    with pytest.raises(UsageProblem, match="names 2 adapters without weights"):
        parse_adapter(text)


def test_parts_without_weights_are_answered_with_a_mix_and_with_compare() -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_adapter("noir@3,shanty")
    assert '"noir@3=0.5,shanty=0.5"' in caught.value.hint
    assert caught.value.hint.endswith("adapterkit compare noir@3 shanty")


def test_the_mix_in_the_hint_can_be_read_again() -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_adapter("a,b,c")
    mix = next(w for w in shlex.split(caught.value.hint) if "=" in w).rstrip(";")
    assert [p.ref.name for p in parse_adapter(mix)] == ["a", "b", "c"]


@pytest.mark.parametrize("weight", ["", "much", "nan", "inf", "-inf"])
def test_a_weight_is_a_finite_number(weight: str) -> None:
    with pytest.raises(UsageProblem, match="is not a weight"):
        parse_adapter(f"noir={weight}")


@pytest.mark.parametrize("text", ["", ",", "noir=0.5,", "=0.5", "noir shanty"])
def test_a_torn_blend_is_refused(text: str) -> None:
    with pytest.raises(NotFound, match="is not a version of an adapter"):
        parse_adapter(text)


def test_the_base_is_no_part_of_a_blend() -> None:
    with pytest.raises(UsageProblem, match=r"'base' is (reserved|plain GPT-2)"):
        parse_adapter("base=0.5,noir=0.5")


def test_a_dict_refuses_the_weights_that_the_text_refuses() -> None:
    with pytest.raises(UsageProblem, match="not a weight"):
        from_mapping({"noir": float("nan")})


def test_a_dict_means_the_same_as_the_text() -> None:
    assert from_mapping({"noir@3": 0.7, "shanty": 0.3}) == parse_adapter("noir@3=0.7,shanty=0.3")


@pytest.mark.parametrize("name", ["noir", "3", "a-b_c", "x" * 64])
def test_these_are_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Noir", "-a", "_a", "a.b", "a/b", "a b", "x" * 65, "noir\n", "café"])
def test_these_are_no_names(name: str) -> None:
    with pytest.raises(UsageProblem, match="is not a name for an adapter"):
        check_name(name)


@pytest.mark.parametrize("name", ["base", "latest", "best", "embedded", "con", "nul", "com1", "lpt9"])
def test_reserved_words_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageProblem, match=f"'{name}' is reserved"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Stories!", "my-stories"),
        ("best", "best-texts"),
        ("...", "my-texts"),
        ("--x--", "x"),
        ("Ünder", "nder"),
    ],
)
def test_the_nearest_name_is_suggested(text: str, expected: str) -> None:
    assert suggest_name(text) == expected


@pytest.mark.parametrize("text", ["", "CON", "é", "a" * 80, "-" * 70, "x" * 63 + "--y", "Best!"])
def test_whatever_is_suggested_is_a_name(text: str) -> None:
    assert is_name(suggest_name(text))


@pytest.mark.parametrize(
    ("text", "expected"), [("9f2c1a7", True), ("9f2c1a", False), ("9f2c1ag", False), ("1234567", True)]
)
def test_seven_hex_digits_look_like_a_digest(text: str, expected: bool) -> None:
    assert looks_like_digest(text) is expected
