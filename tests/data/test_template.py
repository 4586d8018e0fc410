"""How pairs and chats are written, and which part of them is learned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit.data.template import AUTO, Prompt, Template, Turn, is_assistant, named
from adapterkit.data.text import Document, Spans
from adapterkit.errors import DataError

CHAT = [
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", "Hello."),
    ("user", "Bye"),
    ("assistant", "Bye."),
]
CHATML = "<|im_start|>{role}\n{content}<|im_end|>\n"


def _learned(text: str, context: Spans) -> list[str]:
    return [part for part, learned in Document("", 0, text, context).segments() if learned]


# --- chats ---


def test_a_chat_is_a_line_a_turn() -> None:
    text, _ = Template().render(CHAT)
    assert text == "System: Be brief.\nUser: Hi\nAssistant: Hello.\nUser: Bye\nAssistant: Bye."


def test_what_the_assistant_says_is_learned_with_the_tag_that_ends_its_turn() -> None:
    assert _learned(*Template().render(CHAT)) == [" Hello.\nUser:", " Bye."]


def test_a_mark_that_ends_a_turn_is_learned() -> None:
    learned = _learned(*Template(CHATML).render(CHAT))
    assert learned == ["Hello.<|im_end|>\n<|im_start|>User\n", "Bye.<|im_end|>"]


def test_an_assistant_that_speaks_twice_learns_both_turns_and_the_tag_between() -> None:
    text, context = Template().render([("user", "Hi"), ("assistant", "One."), ("assistant", "Two.")])
    assert _learned(text, context) == [" One.\nAssistant: Two."]


def test_a_chat_may_begin_with_the_assistant() -> None:
    assert Template().render([("assistant", "Hello.")]) == ("Assistant: Hello.", ((0, 10),))


def test_turns_after_the_last_of_the_assistant_are_left_out() -> None:
    assert Template().render([*CHAT, ("user", "Still there?")]) == Template().render(CHAT)


def test_blank_turns_are_left_out() -> None:
    assert Template().render([CHAT[0], ("user", " \n"), *CHAT[1:], ("assistant", "")]) == Template().render(
        CHAT
    )


def test_a_chat_in_which_the_assistant_is_silent_is_no_text() -> None:
    assert Template().render([("user", "Hi"), ("system", "Be brief.")]) == ("", ())


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        ("human", "User"),
        ("gpt", "Assistant"),
        ("GPT", "Assistant"),
        ("ASSISTANT", "Assistant"),
        (" system ", "System"),
        ("mary Ann", "Mary Ann"),
    ],
)
def test_roles_have_one_spelling(role: str, shown: str) -> None:
    assert Template().turn(role, "Hi") == f"{shown}: Hi\n"


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        (AUTO, "Assistant:"),
        (CHATML, "<|im_start|>Assistant\n"),
        ("\n\n{role}:   {content}", "\n\nAssistant:"),
        ("### {role}:\n{content}\n\n", "### Assistant:\n"),
    ],
)
def test_what_opens_a_turn_has_no_blank_at_its_end(template: str, opening: str) -> None:
    assert Template(template).opening("assistant") == opening


@pytest.mark.parametrize(
    ("template", "stop"),
    [
        ("auto", ["\nUser:", "\nSystem:"]),
        (CHATML, ["<|im_end|>"]),
        ("\n\n{role}: {content}", ["\n\nUser:", "\n\nSystem:"]),
    ],
)
def test_a_turn_ends_at_its_mark_or_where_another_speaks(template: str, stop: list[str]) -> None:
    assert Template(template).stop == stop


@pytest.mark.parametrize("template", [AUTO, CHATML, "\n\n{role}: {content}"])
def test_every_answer_that_is_followed_is_learned_up_to_a_stop(template: str) -> None:
    form = Template(template)
    first = _learned(*form.render(CHAT))[0]
    assert any(stop in first for stop in form.stop)


def test_a_typed_line_break_is_one() -> None:
    assert Template(r"{role}: {content}\n").text == AUTO


@pytest.mark.parametrize(
    "template",
    [
        "{role}: text\n",
        "{content}\n",
        "{content} by {role}\n",
        "{role}: {content} {content}\n",
        "{role} {role}{content}\n",
    ],
)
def test_a_template_without_role_and_then_content_is_refused_with_an_example(template: str) -> None:
    with pytest.raises(DataError, match=r"needs \{role\} and then \{content\}, once each") as caught:
        Template(template)
    assert caught.value.hint == r"such as '{role}: {content}\n': --data-template '{role}: {content}\n'"


def test_a_template_that_runs_turns_together_is_refused() -> None:
    with pytest.raises(DataError, match="nothing between one turn and the next"):
        Template("{role}: {content}")


words = st.text(min_size=1).map(str.strip).filter(bool)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "gpt", "Alice"]), words))
forms = st.sampled_from([AUTO, CHATML, "\n\n{role}: {content}", "### {role}:\n{content}\n\n"])


@given(turns, forms)
def test_spans_of_a_chat_ascend_and_lie_within_it(messages: list[Turn], form: str) -> None:
    text, context = Template(form).render(messages)
    edges = [edge for span in context for edge in span]
    assert edges == sorted(set(edges))
    assert not edges or (edges[0] == 0 and edges[-1] <= len(text))


@given(turns, forms)
def test_everything_the_assistant_says_is_learned(messages: list[Turn], form: str) -> None:
    learned = "".join(_learned(*Template(form).render(messages)))
    for role, content in messages:
        if is_assistant(role):
            before, found, learned = learned.partition(content)
            assert found, before


@given(turns, forms)
def test_nothing_that_others_say_is_learned(messages: list[Turn], form: str) -> None:
    template = Template(form)
    marked = [(role, content if is_assistant(role) else "\0other\0") for role, content in messages]
    assert "\0other\0" not in "".join(_learned(*template.render(marked)))


@given(turns, forms)
def test_a_chat_is_its_turns_one_after_the_other(messages: list[Turn], form: str) -> None:
    template = Template(form)
    whole = "".join(template.turn(*m) for m in messages)
    assert whole.startswith(template.render(messages)[0])


@given(turns)
def test_a_chat_up_to_an_answer_is_what_is_asked_in_again(messages: list[Turn]) -> None:
    template = Template()
    text, context = template.render([*messages, ("assistant", "yes")])
    asked = "".join(template.turn(*m) for m in messages) + template.opening("assistant")
    assert text == asked + " yes"
    assert context[-1][1] == len(asked) or is_assistant(named(messages[-1][0]))


# --- prompts ---


def test_a_prompt_is_filled_from_columns() -> None:
    assert Prompt("Q: {q}\nA:").fill({"q": "Who?"}) == "Q: Who?\nA:"


def test_doubled_braces_are_braces() -> None:
    prompt = Prompt("{{{q}}} {{x}}")
    assert (prompt.columns, prompt.fill({"q": "{y}"})) == (("q",), "{{y}} {x}")


def test_values_are_not_filled_again() -> None:
    assert Prompt("{a} {b}").fill({"a": "{b}", "b": "two"}) == "{b} two"


def test_a_field_is_a_whole_column_name() -> None:
    assert Prompt("{Joke Text} {a.b} {c!r:>9}").columns == ("Joke Text", "a.b", "c!r:>9")


def test_a_line_that_is_only_a_blank_column_is_left_out() -> None:
    prompt = Prompt("{instruction}\n{input}\n")
    assert prompt.fill({"instruction": "Sing.", "input": "  "}) == "Sing.\n"


def test_a_line_with_words_stays_though_its_column_is_blank() -> None:
    assert Prompt("Input: {input}\n").fill({"input": ""}) == "Input: \n"


def test_line_ends_of_a_value_do_not_pile_up() -> None:
    assert Prompt("{q}\n").fill({"q": "Who? \n\n"}) == "Who?\n"


def test_a_value_is_kept_whole_within_a_line() -> None:
    assert Prompt("{q}->").fill({"q": "  Who? "}) == "  Who? ->"


@pytest.mark.parametrize("text", ["{q", "q}", "{ {q}", "{q}}"])
def test_a_lone_brace_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="names no column") as caught:
        Prompt(text)
    assert "to have a brace in the text" in caught.value.hint


def test_a_prompt_without_columns_is_a_fixed_text() -> None:
    assert (Prompt("Tell a joke:\\n").columns, Prompt("Tell a joke:\\n").fill({})) == ((), "Tell a joke:\n")


@given(st.text(alphabet=st.characters(exclude_characters="{}\\")), st.text())
def test_text_around_a_column_is_used_as_written(around: str, value: str) -> None:
    assert Prompt(f"{around}{{q}}|").fill({"q": value}) == f"{around}{value}|"
