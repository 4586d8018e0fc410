"""Patterns people write, held to a time and a size.

A few characters can ask for years of work. ``regex`` gives up after a time, which
ends that; what its compiler would unfold without end is refused beforehand.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import regex

from adapterkit.data.text import Document
from adapterkit.errors import DataError, RecipeError

LONGEST = 1000  # characters of a pattern
DEEPEST = 50  # brackets within each other
MOST_REPEATS = 10_000  # repeats within repeats multiplied; the compiler writes them all out, x+ as xx*
SECONDS = 0.4  # for one document, or each megabyte of a larger one
TOTAL = 0.5  # seconds for all documents, and again for each megabyte
MEGABYTE = 1 << 20  # characters
GROWTH = 10  # times the length of a text, and a megabyte, that a replacement may make of it

# What counts in a pattern: an escape, a set, a comment, a call of itself, brackets, and how often something is repeated
PART = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)|(?P<call>\(\?(?:R|[+-]?\d+|&\w+|P>\w+)\))|[()]"
    r"|(?P<plus>\+)|\{(?P<least>\d*),?(?P<most>\d*)\}|.",
    re.DOTALL,
)


class Pattern:
    """One compiled pattern with what it has left to spend.

    Args:
        rule: as it is written in the recipe, for messages.
        pattern: in the syntax of ``regex``.
        to: what replaces what it finds.

    Raises:
        RecipeError: code ``bad-pattern``.
    """

    def __init__(self, rule: str, pattern: str, to: str = "") -> None:
        self._rule, self._to = rule, to
        self._compiled = _compiled(rule, pattern)
        self._plain = "\\" not in to
        self._spent, self._seen = 0.0, 0
        try:  # groups are looked up at the first match: a pattern with the same ones that finds nothing at once
            regex.compile("|" + pattern).sub(to, "")
        except (regex.error, IndexError) as e:
            raise _bad(rule, f"the replacement {to!r}: {e}") from None

    def found(self, text: str, document: Document) -> bool:
        """Whether the pattern is anywhere in a text.

        Raises:
            DataError: code ``slow-pattern``.
        """
        with self._timed(text, document) as seconds:
            return self._compiled.search(text, timeout=seconds) is not None

    def replaced(self, text: str, document: Document) -> str:
        """The text with everything the pattern finds replaced.

        Raises:
            DataError: code ``slow-pattern``, or ``growing-pattern`` when the text gets far longer.
        """
        with self._timed(text, document) as seconds:
            by = self._bounded(text, document) if self._to else ""
            changed: str = self._compiled.sub(by, text, timeout=seconds)
        return changed

    def _bounded(self, text: str, document: Document) -> Any:
        room = GROWTH * len(text) + MEGABYTE

        def expanded(match: Any) -> str:
            nonlocal room
            piece: str = self._to if self._plain else match.expand(self._to)
            room -= len(piece)
            if room < 0:
                raise DataError(
                    f"{self._rule} makes {_name(document)} more than {GROWTH} times as long.",
                    hint="give a pattern that finds less, or a shorter replacement",
                    code="growing-pattern",
                )
            return piece

        return expanded

    @contextmanager
    def _timed(self, text: str, document: Document) -> Iterator[float]:
        """Seconds a search may take; what it took is counted."""
        self._seen += len(text)
        left = TOTAL * (1 + self._seen / MEGABYTE) - self._spent
        stopped = False
        begun = time.thread_time()  # not the clock: a busy machine must not make a pattern bad
        try:
            yield max(0.01, min(SECONDS * max(1.0, len(text) / MEGABYTE), left))
        except (TimeoutError, MemoryError, RecursionError):
            stopped = True  # told below, when its time is counted
        finally:
            self._spent += time.thread_time() - begun
        if stopped or self._spent > TOTAL * (1 + self._seen / MEGABYTE) + SECONDS:
            raise self._slow(document) from None

    def _slow(self, document: Document) -> DataError:
        return DataError(
            f"{self._rule} takes too long on {_name(document)}: it was stopped after "
            f"{self._spent:.1f} seconds for {self._seen:,} characters.",
            hint="repeats within repeats, such as (a+)+ or .*.*, take forever; write it with one, or without",
            code="slow-pattern",
            details={"rule": self._rule, "source": document.source, "index": document.index},
        )


def _compiled(rule: str, pattern: str) -> Any:
    _refuse_bombs(rule, pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that may mean something else one day
            return regex.compile(pattern, cache_pattern=False)
    except regex.error as e:
        raise _bad(rule, f"{e.msg}{'' if e.pos is None else f' at character {e.pos + 1}'}") from None
    except (RecursionError, MemoryError, OverflowError, ValueError, IndexError) as e:
        raise _bad(rule, f"it can't be compiled ({type(e).__name__})") from None


def _refuse_bombs(rule: str, pattern: str) -> None:
    if len(pattern) > LONGEST:
        raise _bad(rule, f"{len(pattern):,} characters, over {LONGEST:,}")
    depth, repeats, call = _weight(pattern)
    if call:  # of all that takes time, this takes a gigabyte a second as well
        raise _bad(rule, f"it calls itself with {call}")
    if depth > DEEPEST:
        raise _bad(rule, f"brackets {depth} deep, over {DEEPEST}")
    if repeats > MOST_REPEATS:
        raise _bad(rule, f"repeats that multiply to {repeats:,}, over {MOST_REPEATS:,}")


def _weight(pattern: str) -> tuple[int, int, str]:
    """How deep brackets are nested, the largest product of repeats within repeats, and a call of a group."""
    deepest, last, call = 0, 1, ""
    heaviest = [1]  # per open bracket
    for part in PART.finditer(pattern):
        if part[0] == "(":
            heaviest.append(1)
            deepest, last = max(deepest, len(heaviest) - 1), 1
        elif part[0] == ")":
            last = heaviest.pop() if len(heaviest) > 1 else last
        elif part["plus"] or part["least"] or part["most"]:
            last *= max(int(part["least"] or 0), int(part["most"] or 0), 2)
        elif part[0] not in "?*":
            last, call = 1, call or part["call"] or ""
        heaviest[-1] = max(heaviest[-1], last)
    return deepest, max(heaviest), call


def _bad(rule: str, reason: str) -> RecipeError:
    return RecipeError(
        f"the pattern of {rule} can't be used: {reason}.",
        hint="mend it in data.clean; a backslash before a sign that is meant as itself: \\( \\[ \\. \\?",
        code="bad-pattern",
    )


def _name(document: Document) -> str:
    return document.source if document.index == 0 else f"{document.source} #{document.index + 1}"
