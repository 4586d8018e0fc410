"""Cleaning: rules in their order, each told with what it did.

Documents pass one by one and none is kept, so a corpus may be of any size.
``near-duplicates`` and ``leaks`` compare whole corpora and are done elsewhere
(``copies``). In pairs and chats every stretch is changed by itself and keeps the
blanks around it, so that prompts stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from adapterkit.data.patterns import Pattern
from adapterkit.data.promotions import AsPrinted, without_promotion
from adapterkit.data.repairs import mended, plain, tidy
from adapterkit.data.text import Document
from adapterkit.data.words import count_words, mark
from adapterkit.errors import RecipeError, nearest
from adapterkit.recipe.schema import CLEANERS, Rule

ELSEWHERE = ("near-duplicates", "leaks")
PRINTED = "promotions-as-printed"
EXAMPLES, EXCERPT = 2, 160  # per rule; characters

Change = Callable[[Document], Document | None]


@dataclass(frozen=True)
class Done:
    """What one rule did."""

    rule: str  # as written: "unicode", "drop 'subscribe'"
    documents: int  # changed or left out; for promotions-as-printed stories
    characters: int  # removed: before less after, all of a document left out; negative when text was added
    dropped: int  # documents left out whole
    examples: tuple[
        tuple[str, str], ...
    ]  # at most two (before, after) around the first change; after is "" when dropped
    ends_lost: int = 0  # end marks destroyed, by promotions-as-printed
    told: str = ""  # what else there is to say


class Cleaner:
    """Rules for a stream of documents.

    Raises:
        RecipeError: a pattern does not compile (code ``bad-pattern``), or no such rule.
    """

    def __init__(self, rules: Sequence[str | Rule]) -> None:
        self._steps = [_Step(_written(rule), _change(rule)) for rule in rules if rule not in ELSEWHERE]
        self._printed = [step for step in self._steps if step.rule == PRINTED]
        self._cost = AsPrinted()

    def raw(self, content: str) -> str:
        """A file's text, or a stretch of it that ends with a line, before documents are cut.

        Raises:
            DataError: code ``slow-pattern``.
        """
        if not self._printed:
            return content
        step = self._printed[0]
        changed = []
        for line in content.split("\n"):
            after = self._cost.line(line)
            if after != line and len(step.examples) < EXAMPLES:
                step.examples.append(_excerpts(line, after))
            changed.append(after)
        step.documents, step.characters = self._cost.stories, self._cost.lost
        return "\n".join(changed)

    def __call__(self, document: Document) -> Document | None:
        """The document cleaned; None when a rule leaves it out.

        Raises:
            DataError: a pattern takes too long (code ``slow-pattern``) or makes too much text (``growing-pattern``).
        """
        for step in self._steps:
            if (after := step(document)) is None:
                return None
            document = after
        return document

    def done(self) -> list[Done]:
        """What each rule did so far, in their order."""
        return [step.done(self._cost if step.rule == PRINTED else AsPrinted()) for step in self._steps]


@dataclass
class _Step:
    """One rule and its counts."""

    rule: str
    change: Change
    documents: int = 0
    characters: int = 0
    dropped: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, document: Document) -> Document | None:
        after = self.change(document)
        if after is not None and after.text == document.text:
            return document
        text = "" if after is None else after.text
        self.documents += 1
        self.dropped += after is None
        self.characters += len(document.text) - len(text)
        if len(self.examples) < EXAMPLES:
            self.examples.append(_excerpts(document.text, text))
        return after

    def done(self, cost: AsPrinted) -> Done:
        return Done(
            self.rule,
            self.documents,
            self.characters,
            self.dropped,
            tuple(self.examples),
            cost.stories,
            cost.told,
        )


def _excerpts(before: str, after: str) -> tuple[str, str]:
    """Both around their first difference."""
    at, size = 0, 4096
    while before[at : at + size] == after[at : at + size] and at < len(before):
        at += size
    here = zip(before[at:], after[at : at + size], strict=False)
    rest = max(min(len(before), len(after)) - at, 0)  # where one of them ends, if they differ only there
    at += next((i for i, (a, b) in enumerate(here) if a != b), rest)
    begin = max(0, at - EXCERPT // 4)
    return before[begin : begin + EXCERPT], after[begin : begin + EXCERPT]


# --- what a rule does ---------------------------------------------------------


def _written(rule: str | Rule) -> str:
    if isinstance(rule, str):
        return rule
    if rule.replace is not None:
        return f"replace {rule.replace!r} by {rule.to!r}"
    if rule.drop is not None:
        return f"drop {rule.drop!r}"
    return f"min_words {rule.min_words}" if rule.min_words is not None else f"max_words {rule.max_words}"


def _change(rule: str | Rule) -> Change:
    if isinstance(rule, Rule):
        return _with_value(rule)
    if rule == "duplicates":
        return _first_of_copies()
    if rule == PRINTED:
        return lambda document: document
    if rule == "promotions":
        return _on_stretches(_inside(without_promotion), learned_only=True)
    known = {"unicode": mended, "html": plain, "whitespace": tidy}
    if rule not in known:
        meant = nearest(rule, CLEANERS)
        raise RecipeError(
            f"there is no cleaning rule {rule!r}.",
            hint=f"did you mean {meant!r}?" if meant else ", ".join(CLEANERS),
        )
    return _on_stretches(_inside(known[rule]))


def _with_value(rule: Rule) -> Change:
    if rule.drop is not None:
        drop = Pattern(_written(rule), rule.drop)
        return lambda document: None if drop.found(document.text, document) else document
    if rule.replace is not None:
        return _on_stretches(Pattern(_written(rule), rule.replace, rule.to).replaced)
    least = rule.min_words or 0
    most = rule.max_words or float("inf")
    return lambda document: document if least <= count_words(document.text) <= most else None


def _first_of_copies() -> Change:
    seen: set[int] = set()

    def first(document: Document) -> Document | None:
        known = len(seen)
        seen.add(mark(document.text))
        return document if len(seen) > known else None

    return first


def _on_stretches(change: Callable[[str, Document], str], *, learned_only: bool = False) -> Change:
    """A change of text, applied to each stretch; a document with nothing left to learn is left out."""

    def changed(document: Document) -> Document | None:
        if not document.context:
            text = change(document.text, document)
            return replace(document, text=text) if text.strip() or text == document.text else None
        before = document.segments()
        after = [
            (change(t, document) if learned or not learned_only else t, learned) for t, learned in before
        ]
        if after == before:
            return document
        return document.rebuilt(after) if any(t.strip() for t, learned in after if learned) else None

    return changed


def _inside(change: Callable[[str], str]) -> Callable[[str, Document], str]:
    """The change without the blanks around a stretch of a pair or chat; they are part of how it is asked."""

    def changed(text: str, document: Document) -> str:
        core = text.strip() if document.context else text
        if not core:
            return text
        before, after = (text.split(core, 1)) if document.context else ("", "")
        return before + change(core) + after

    return changed
